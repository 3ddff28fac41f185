// Part of each component that `forebay udf build` makes of a JavaScript file: between JSON text and the values that
// functions of Azure Stream Analytics take and give.
//
// bigint and float are Number (bigints beyond 2^53 are rounded, as there), nvarchar(max) is String, bit is Boolean, datetime
// is Date, record is Object, array is Array, NULL is null; undefined is NULL too.

// A datetime is written with seven digits of a second, which no other text has but by intent.
const MOMENT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z$/;
const SOME_MOMENT = /"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z"/;

// The text a Date came from: it has more digits than the Date.
const exact = new WeakMap();

function moment(text) {
  const date = new Date(text);
  exact.set(date, { text, time: date.getTime() });
  return date;
}

function momentText(date) {
  const came = exact.get(date);
  if (came !== undefined && came.time === date.getTime()) return came.text;
  return Number.isNaN(date.getTime()) ? null : date.toISOString().replace('Z', '0000Z');
}

function revive(key, value) {
  return typeof value === 'string' && MOMENT.test(value) ? moment(value) : value;
}

function parsed(text) {
  return SOME_MOMENT.test(text) ? JSON.parse(text, revive) : JSON.parse(text);
}

function read(json) {
  return json === undefined || json === null ? null : parsed(json.jsonText);
}

// JSON as the file's own code sees it stays as it is: these are in place only while a result is written.
function withOurForms(work) {
  const plain = Date.prototype.toJSON;
  Date.prototype.toJSON = function () { return momentText(this); };
  BigInt.prototype.toJSON = function () { return JSON.rawJSON(String(this)); };
  try {
    return work();
  } finally {
    Date.prototype.toJSON = plain;
    delete BigInt.prototype.toJSON;
  }
}

function write(value) {
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'function' || typeof value === 'symbol') throw new TypeError(`gave a ${typeof value}, which is no value of a query`);
  if (value instanceof Promise) throw new TypeError('gave a Promise; a function has to give its value at once');
  const jsonText = withOurForms(() => JSON.stringify(value));
  return jsonText === undefined ? undefined : { jsonText };
}

// What the file's functions throw is the row's error, in words.
function orError(work) {
  try {
    return work();
  } catch (error) {
    throw inWords(error);
  }
}

// Always a text: anything else thrown would end the instance.
function inWords(error) {
  try {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  } catch {
    return 'threw an object without a text';
  }
}

// An exported function.
function called(theirs) {
  return (...args) => orError(() => write(theirs(...args.map(read))));
}

// The state of an aggregate's object: its fields. JSON has no infinities, which minimum and maximum begin with.
function saved(object) {
  const keep = (key, value) => {
    if (typeof value === 'number' && !Number.isFinite(value)) return { $number: String(value) };
    if (value instanceof Map || value instanceof Set) throw new TypeError(`the field \`${key}\` is no plain object or array: it cannot be saved`);
    return value;
  };
  return new TextEncoder().encode(withOurForms(() => JSON.stringify(object, keep)));
}

function restored(bytes) {
  const back = (key, value) => {
    if (value !== null && typeof value === 'object' && typeof value.$number === 'string') return Number(value.$number);
    return revive(key, value);
  };
  return JSON.parse(new TextDecoder().decode(bytes), back);
}

const TICKS_1970 = 621355968000000000n;

function dateOf(datetime) {
  return new Date(Number((datetime.ticksSinceYearOne - TICKS_1970) / 10000n));
}

function aggregateOf(main) {
  return class Aggregate {
    constructor() {
      this.theirs = new main();
      if (typeof this.theirs.init === 'function') this.theirs.init();
    }
    accumulate(...args) {
      const at = dateOf(args.pop());
      orError(() => this.theirs.accumulate(...args.map(read), at));
    }
    deaccumulate(...args) {
      const at = dateOf(args.pop());
      orError(() => this.theirs.deaccumulate(...args.map(read), at));
    }
    compute() {
      return orError(() => write(this.theirs.computeResult()));
    }
    save() {
      return saved(this.theirs);
    }
    static restore(state) {
      const made = new Aggregate();
      Object.assign(made.theirs, restored(state));
      return made;
    }
  };
}
