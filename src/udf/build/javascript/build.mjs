// Makes a component of a JavaScript file as Azure Stream Analytics takes it: functions at the top level, or `main`, whose
// objects accumulate. Run by `forebay udf build`; its last line on standard output is its answer.
//
// node --input-type=module --eval THIS -- FILE VALUES_JS OUT COMPONENTIZE_JS_FOLDER
import { readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import vm from 'node:vm';

const [file, valuesFile, out, componentizeFolder] = process.argv.slice(1);
const source = await readFile(file, 'utf8');
const values = await readFile(valuesFile, 'utf8');
const JSON_TYPE = 'record json { json-text: string }';
// More than any file takes that only declares.
const RUN_MS_MAX = 10_000;
const HELP = 'functions stand at the top level of the file, as in Stream Analytics: `function add(a, b) { return a + b; }`';

class Problem extends Error {
  constructor(title, place = {}) {
    super(title);
    this.answer = { title, line: 0, column: 0, width: 1, label: '', help: HELP, ...place };
  }
}

try {
  const functions = declared();
  const { wit, module } = isAggregate(functions) ? aggregate() : plain(functions);
  if (componentizeFolder === '') {
    console.log(JSON.stringify({ problem: null }));
    process.exit(0);
  }
  const { componentize } = await import(pathToFileURL(join(componentizeFolder, 'src', 'componentize.js')));
  const { component } = await componentize(module, wit, {
    // none of them has a meaning here, and without them the component imports nothing
    disableFeatures: ['random', 'stdio', 'clocks', 'http', 'fetch-event'],
  });
  await writeFile(out, component);
  console.log(JSON.stringify({ problem: null }));
} catch (error) {
  if (!(error instanceof Problem)) throw error;
  console.log(JSON.stringify({ problem: error.answer }));
}

// The functions of the file by name. It is run once here, to know them; what it does beside declaring is done again in
// the component.
function declared() {
  const context = vm.createContext({});
  let script;
  try {
    script = new vm.Script(source, { filename: file });
  } catch (error) {
    throw new Problem(`this is no JavaScript: ${error.message}`, placeOf(error));
  }
  try {
    script.runInContext(context, { timeout: RUN_MS_MAX });
  } catch (error) {
    throw new Problem(`the file ends with an error when it is run: ${error?.message ?? String(error)}`, placeOf(error));
  }
  const found = [...Object.entries(context), ...lexical(context)].filter(([name, value]) => isFunction(name, value));
  if (found.length === 0) throw new Problem('the file declares no functions');
  return new Map(found);
}

// What `const`, `let` and `class` declare is no property of the global object, but a later script sees it.
function lexical(context) {
  const names = new Set([...source.matchAll(/\b(?:const|let|class)\s+([\w$]+)/g)].map(([, name]) => name));
  const ofTheGlobal = vm.runInContext('(name) => Object.hasOwn(globalThis, name)', context);
  const found = [];
  for (const name of names) {
    if (ofTheGlobal(name)) continue;
    try {
      found.push([name, vm.runInContext(name, context)]);
    } catch {
      // declared inside of something, or in a text
    }
  }
  return found;
}

// A class cannot be called; as `main` it makes objects.
function isFunction(name, value) {
  return typeof value === 'function' && (name === 'main' || !/^class\b/.test(Function.prototype.toString.call(value)));
}

// Where V8 says that an error is: FILE:LINE, the line, and carets under the place, or a frame FILE:LINE:COLUMN.
function placeOf(error) {
  const lines = String(error?.stack).split('\n');
  const head = lines[0].startsWith(`${file}:`) ? Number(lines[0].slice(file.length + 1)) : 0;
  if (!head) return {};
  const carets = /^(\s*)(\^+)/.exec(lines[2] ?? '');
  const help = /^\s*(import|export)\b/.test(lines[1] ?? '') ? 'leave out `import` and `export`: the file is a plain script' : null;
  return { line: head, column: carets?.[1].length ?? 0, width: carets?.[2].length ?? 1, help };
}

function isAggregate(functions) {
  const main = functions.get('main');
  if (main === undefined) return false;
  try {
    const made = new main();
    return typeof made.accumulate === 'function' && typeof made.computeResult === 'function';
  } catch {
    return false;
  }
}

// --- names: WIT has words of lower-case letters and digits, joined by `-`

function kebab(name) {
  const words = name.replace(/([a-z0-9])([A-Z])/g, '$1-$2').split(/[^A-Za-z0-9]+|-/).filter((word) => word !== '');
  const joined = words.map((word) => word.toLowerCase()).reduce((all, word) => all + (all !== '' && /^[a-z]/.test(word) ? '-' : '') + word, '');
  return /^[a-z]/.test(joined) && /^[\x20-\x7e]*$/.test(name) ? joined : null;
}

function camel(kebabName) {
  return kebabName.replace(/-(.)/g, (_, letter) => letter.toUpperCase());
}

// The names of a function's parameters; with one that is more than a name (`{a, b}`) all are named by their places,
// and those from the first with a default on are left out, as in its `length`.
function parameters(fn) {
  const text = Function.prototype.toString.call(fn).replace(/\/\*[^]*?\*\/|\/\/[^\n]*/g, '');
  const list = /^([\w$]+)\s*=>/.exec(text)?.[1] ?? /^[^(]*\(([^]*?)\)/.exec(text)?.[1] ?? '';
  const given = list.split(',').slice(0, fn.length).map((name) => name.trim());
  const names = given.length === fn.length && given.every((name) => /^[\w$]+$/.test(name)) ? given : Array(fn.length).fill('');
  const words = names.map((name, i) => kebab(name) ?? `arg${i + 1}`);
  return words.map((word, i) => (words.indexOf(word) === i ? word : `arg${i + 1}`));
}

function exported(name) {
  const word = kebab(name);
  if (word === null) throw new Problem(`\`${name}\` cannot be the name of a function of a query`, { help: 'begin it with a letter, and use letters and digits of English' });
  return word;
}

// --- the two forms

// `new Function` gives sloppy mode, which a module has not: files written for Stream Analytics may count on it.
function prelude(names) {
  const body = `${source}\nreturn { ${names.join(', ')} };\n//# sourceURL=${basename(file)}`;
  return `${values}\nconst theirs = new Function(${JSON.stringify(body)})();\n`;
}

function plain(functions) {
  const all = [...functions].map(([name, fn]) => ({ name, word: exported(name), takes: parameters(fn) }));
  for (const [i, { name, word }] of all.entries()) {
    const fold = (text) => text.replace(/-/g, '');
    const same = all.slice(0, i).find((other) => fold(other.word) === fold(word));
    if (same) throw new Problem(`\`${same.name}\` and \`${name}\` are one name to a query`, { help: 'rename one of them' });
  }
  const exports = all.map(({ word, takes }) => {
    const list = takes.map((name) => `%${name}: option<json>`).join(', ');
    return `  export %${word}: func(${list}) -> result<option<json>, string>;`;
  });
  const wit = `package forebay:javascript;\nworld functions {\n  ${JSON_TYPE}\n${exports.join('\n')}\n}\n`;
  const bodies = all.map(({ name, word }, i) => {
    return `const function${i} = called(theirs[${JSON.stringify(name)}]);\nexport { function${i} as ${camel(word)} };`;
  });
  return { wit, module: prelude(all.map(({ name }) => name)) + bodies.join('\n') };
}

function hasData(one) {
  try {
    if (typeof one.init === 'function') one.init();
  } catch {
    // it will tell when it runs
  }
  return Object.values(one).some((value) => typeof value !== 'function');
}

// The object of `main` is a resource, named as the file is. Its state is its data: what a restart brings back.
function aggregate() {
  const word = exported(basename(file).replace(/\.js$/, ''));
  const one = new (vm.runInContext(`${source}\nmain`, vm.createContext({})))();
  const count = Math.max(1, parameters(one.accumulate).length - (one.accumulate.length > 1 ? 1 : 0));
  const takes = [...Array(count).keys()].map((i) => `value${i || ''}: option<json>`).join(', ');
  // without a field of data its state lies in closures, which cannot be saved: then its rows are kept
  const saves = hasData(one) ? `    save: func() -> list<u8>;\n    restore: static func(state: list<u8>) -> %${word};\n` : '';
  const leaves = typeof one.deaccumulate === 'function' ? `    deaccumulate: func(${takes}, at: datetime) -> result<_, string>;\n` : '';
  const wit = `package forebay:javascript;
interface aggregates {
  ${JSON_TYPE}
  record datetime { ticks-since-year-one: s64 }
  resource %${word} {
    constructor();
    accumulate: func(${takes}, at: datetime) -> result<_, string>;
${leaves}    compute: func() -> result<option<json>, string>;
${saves}  }
}
world aggregate {
  export aggregates;
}
`;
  const name = camel(`-${word}`);
  return { wit, module: `${prelude(['main'])}export const aggregates = { ${name}: aggregateOf(theirs.main) };` };
}
