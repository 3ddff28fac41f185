// The taxi functions in AssemblyScript, and a distance. A core module: `distanceKm` takes and gives numbers, the others
// take their arguments as one JSON array and give JSON (see wit/core-abi.md). There is no JSON in the language's library,
// and these need none but its commas.

const EARTH_RADIUS_KM: f64 = 6371.0088;

/** Distance of two places on the sphere, by the haversine; degrees in, kilometres out. */
export function distanceKm(latitude1: f64, longitude1: f64, latitude2: f64, longitude2: f64): f64 {
  const radians = Math.PI / 180;
  const a = Math.sin(((latitude2 - latitude1) * radians) / 2);
  const b = Math.sin(((longitude2 - longitude1) * radians) / 2);
  const h = a * a + Math.cos(latitude1 * radians) * Math.cos(latitude2 * radians) * b * b;
  return 2 * EARTH_RADIUS_KM * Math.asin(Math.sqrt(Math.min(1, h)));
}

export function forebay_json_create_array(pointer: i32, length: i32): i64 {
  const args = String.UTF8.decodeUnsafe(pointer, length);
  if (elements(args).length != 5) return fail("createArray takes 5 arguments");
  return give(args);
}

const FIELDS = ["vendorid", "weekday", "pickuphour", "passenger", "distance"];

export function forebay_json_create_row(pointer: i32, length: i32): i64 {
  const given = elements(String.UTF8.decodeUnsafe(pointer, length));
  if (given.length != FIELDS.length) return fail("createRow takes 5 arguments");
  const fields = new Array<string>();
  for (let i = 0; i < FIELDS.length; i++) fields.push('"' + FIELDS[i] + '":' + given[i]);
  return give("{" + fields.join(",") + "}");
}

/** The texts of the elements of a JSON array. */
function elements(array: string): string[] {
  const found = new Array<string>();
  let depth = 0, start = 1, quoted = false;
  for (let i = 0; i < array.length; i++) {
    const c = array.charCodeAt(i);
    if (quoted) {
      if (c == 0x5c /* \ */) i++;
      else if (c == 0x22 /* " */) quoted = false;
      continue;
    }
    if (c == 0x22) quoted = true;
    else if (c == 0x5b /* [ */ || c == 0x7b /* { */) depth++;
    const closes = c == 0x5d /* ] */ || c == 0x7d /* } */;
    if ((c == 0x2c /* , */ && depth == 1) || (closes && depth == 1 && i > start)) {
      found.push(array.substring(start, i));
      start = i + 1;
    }
    if (closes) depth--;
  }
  return found;
}

// --- the convention: globals keep both texts from the collector while forebay writes or reads

let block: ArrayBuffer = new ArrayBuffer(0);
let result: ArrayBuffer = new ArrayBuffer(0);

export function forebay_alloc(size: i32): i32 {
  if (size > block.byteLength) block = new ArrayBuffer(size);
  return changetype<i32>(block);
}

function give(json: string): i64 {
  result = String.UTF8.encode(json);
  return ((changetype<u32>(result) as i64) << 32) | (result.byteLength as i64);
}

function fail(message: string): i64 {
  return give(message) | 0x80000000;
}
