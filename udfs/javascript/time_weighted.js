// An aggregate as Azure Stream Analytics takes it: `main` makes an object for each group and window. The mean of a reading,
// each value weighted by the time until the next one.
function main() {
    this.init = function () {
        this.sum = 0;
        this.milliseconds = 0;
        this.last = null;
        this.since = null;
    }

    this.accumulate = function (value, timestamp) {
        if (this.since !== null) {
            var lasted = timestamp - this.since;
            this.sum += this.last * lasted;
            this.milliseconds += lasted;
        }
        this.last = value;
        this.since = timestamp;
    }

    this.computeResult = function () {
        return this.milliseconds > 0 ? this.sum / this.milliseconds : this.last;
    }
}
