// udf.{{camel}}(value, low, high): where a value lies between two bounds, 0 to 1. A function as Stream Analytics takes it:
// what it throws is the row's error.
function {{camel}}(value, low, high) {
    if (value === null) return null;
    if (!(low < high)) throw new Error('low must be below high');
    return Math.min(Math.max((value - low) / (high - low), 0), 1);
}
