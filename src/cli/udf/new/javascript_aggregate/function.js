// uda.{{camel}}(value): how far apart the values of a window are, the largest less the smallest. An aggregate as Stream
// Analytics takes it: `main` makes an object for each group. Its fields are its state; this file's name is the aggregate's.
function main() {
    this.init = function () {
        this.low = null;
        this.high = null;
    }

    this.accumulate = function (value, timestamp) {
        if (value === null) return;
        this.low = this.low === null ? value : Math.min(this.low, value);
        this.high = this.high === null ? value : Math.max(this.high, value);
    }

    this.computeResult = function () {
        return this.low === null ? null : this.high - this.low;
    }
}
