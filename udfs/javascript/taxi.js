// The taxi functions as Azure Stream Analytics takes them: plain functions, values of any type. `createArray` is the one
// of its article on machine learning, as it is.

function createArray(vendorid, weekday, pickuphour, passenger, distance) {
    'use strict';
    var array = [vendorid, weekday, pickuphour, passenger, distance]
    return array;
}

function createRow(vendorid, weekday, pickuphour, passenger, distance) {
    return { vendorid: vendorid, weekday: weekday, pickuphour: pickuphour, passenger: passenger, distance: distance };
}

// The parts of a log line such as `2024-05-01 10:00:00 [WARN] pump-7: pressure=3.2 bar, rpm=1480`, or null.
function parseLine(line) {
    var match = /^(\S+ \S+) \[(\w+)\] ([\w-]+): (.*)$/.exec(line);
    if (match === null) return null;
    var readings = {};
    match[4].replace(/(\w+)=(-?\d+(?:\.\d+)?)/g, function (whole, name, number) { readings[name] = Number(number); });
    return { at: match[1].replace(' ', 'T') + 'Z', level: match[2].toLowerCase(), device: match[3], readings: readings };
}

// Whether a datetime is on a Saturday or Sunday, in UTC.
function isWeekend(at) {
    return at === null ? null : at.getUTCDay() % 6 === 0;
}
