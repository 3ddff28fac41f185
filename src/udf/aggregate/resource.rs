//! Which resources are aggregates.
//!
//! In: the members of exported resources, by reflection. Out: an [`Export`] for each resource, with its members found,
//! or why it is no aggregate. Invariant: what comes out as an aggregate can be called without looking at types again.
//! Not here: calling (`aggregate`).

use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{ComponentExportIndex, ResourceType, Type};

use super::super::component::{Callable, EntryPoint, Export, Passing};
use super::super::wit::{Field, FuncType, Name, Wit};
use crate::query::catalog::Offers;

/// The members of an aggregate, found.
#[derive(Debug)]
pub struct Resource {
    pub offers: Offers,
    pub constructor: ComponentExportIndex,
    pub accumulate: Method,
    pub deaccumulate: Option<Method>,
    pub merge: Option<Method>,
    pub compute: ComponentExportIndex,
    /// `save` and `restore`
    pub save: Option<(ComponentExportIndex, ComponentExportIndex)>,
}

/// A method that gives nothing, or only whether it went well.
#[derive(Debug)]
pub struct Method {
    pub index: ComponentExportIndex,
    /// its `result<_, E>`
    pub result: Option<Wit>,
}

/// The forms that members have, for messages.
const CONSTRUCTOR: &str = "constructor()";
const ACCUMULATE: &str = "accumulate: func(…)";
const COMPUTE: &str = "compute: func() -> T";
const MERGE: &str = "merge: func(other: borrow<self>)";
const SAVE: &str = "save: func() -> list<u8>";
const RESTORE: &str = "restore: static func(state: list<u8>) -> self";

/// Members carry their kind and their resource in their names: `[method]mean.add`.
pub fn is_member(name: &str) -> bool {
    name.starts_with('[')
}

/// A member's kind, its resource's name and its own, which a constructor lacks.
fn member(name: &str) -> Option<(&str, &str, &str)> {
    let (kind, rest) = name.strip_prefix('[')?.split_once(']')?;
    let (resource, own) = rest.split_once('.').unwrap_or((rest, ""));
    Some((kind, resource, own))
}

/// The resources among the items of one interface, or of the top level, in the order of their first members.
pub fn exports<'a>(
    items: impl Iterator<Item = (&'a str, &'a ComponentItem)>,
    interface: Option<&str>,
    index: impl Fn(&str) -> Option<ComponentExportIndex>,
) -> Vec<Export> {
    let mut resources: Vec<(&str, Vec<Member<'a>>)> = Vec::new();
    for (name, item) in items {
        let (Some((kind, resource, own)), ComponentItem::ComponentFunc(func)) = (member(name), item) else { continue };
        let Some(index) = index(name) else { continue };
        let found = Member { kind, own, func, index };
        match resources.iter_mut().find(|(known, _)| *known == resource) {
            Some((_, members)) => members.push(found),
            None => resources.push((resource, vec![found])),
        }
    }
    let export = |(name, members): (&str, Vec<Member<'a>>)| {
        let index = members.first()?.index;
        Some(Export {
            name: name.to_owned(),
            interface: interface.map(str::to_owned),
            callable: read(name, &members),
            entry: EntryPoint::Component(index),
        })
    };
    resources.into_iter().filter_map(export).collect()
}

struct Member<'a> {
    kind: &'a str,
    own: &'a str,
    func: &'a ComponentFunc,
    index: ComponentExportIndex,
}

impl Member<'_> {
    /// Its parameters, a method's `self` left out.
    fn params(&self) -> Vec<(String, Type)> {
        let of_self = usize::from(self.kind == "method");
        self.func.params().skip(of_self).map(|(name, ty)| (name.to_owned(), ty)).collect()
    }

    fn result(&self) -> Option<Type> {
        self.func.results().next()
    }

    fn is_async(&self) -> bool {
        self.func.async_()
    }

    /// As a method without a value.
    fn method(&self) -> Result<Method, String> {
        let result = self.result().map(|ty| Wit::read(&ty)).transpose().map_err(|e| format!("`{}`: {e}", self.own))?;
        match result {
            None | Some(Wit::Result(..)) => Ok(Method { index: self.index, result }),
            Some(other) => {
                Err(format!("its `{}` gives {other}; it gives nothing, or a result to tell of an error", self.own))
            }
        }
    }
}

fn read(name: &str, members: &[Member<'_>]) -> Result<Callable, String> {
    let find = |kind: &str, own: &str| members.iter().find(|m| m.kind == kind && m.own == own);
    let known = ["accumulate", "deaccumulate", "merge", "compute", "save"];
    let odd = members.iter().find(|m| match m.kind {
        "method" => !known.contains(&m.own),
        "static" => m.own != "restore",
        _ => false,
    });
    let lacks = |what: &str| format!("it is a resource, but no aggregate: it lacks `{what}`");
    let constructor = find("constructor", "").ok_or_else(|| lacks(CONSTRUCTOR))?;
    let accumulate = find("method", "accumulate").ok_or_else(|| lacks(ACCUMULATE))?;
    let compute = find("method", "compute").ok_or_else(|| lacks(COMPUTE))?;
    if let Some(odd) = odd {
        let kind = if odd.kind == "static" { "static function" } else { "method" };
        return Err(format!(
            "its {kind} `{}` is none of an aggregate; those are {}, compute, save, and static restore",
            odd.own, "accumulate, deaccumulate, merge"
        ));
    }
    if let Some(member) = members.iter().find(|m| m.is_async()) {
        return Err(format!("its `{}` is async", if member.own.is_empty() { "constructor" } else { member.own }));
    }
    let Some(Type::Own(own)) = constructor.result().filter(|_| constructor.params().is_empty()) else {
        return Err(format!("its constructor has another form than `{CONSTRUCTOR}`"));
    };
    let ty = func_type(accumulate, compute)?;
    let deaccumulate = find("method", "deaccumulate").map(|m| reverse(m, &ty)).transpose()?;
    let merge = find("method", "merge").map(|m| merge(m, own)).transpose()?;
    let save = saving(find("method", "save"), find("static", "restore"), own)?;
    let time = matches!(ty.params.last(), Some(Field { ty: Wit::DateTime, .. }));
    let offers = Offers { deaccumulate: deaccumulate.is_some(), merge: merge.is_some(), save: save.is_some(), time };
    let mut signature = ty.signature(name);
    signature.text = text(name, &ty, offers);
    let resource = Resource {
        offers,
        constructor: constructor.index,
        accumulate: accumulate.method()?,
        deaccumulate,
        merge,
        compute: compute.index,
        save,
    };
    Ok(Callable { signature, passing: Passing::Typed(ty), resource: Some(Box::new(resource)) })
}

/// The aggregate as a function: what `accumulate` takes, what `compute` gives.
fn func_type(accumulate: &Member<'_>, compute: &Member<'_>) -> Result<FuncType, String> {
    let param = |(name, ty): &(String, Type)| {
        let ty = Wit::read(ty).map_err(|e| format!("`{name}` of `accumulate`: {e}"))?;
        Ok(Field { name: Name::new(name), ty })
    };
    let params = accumulate.params().iter().map(param).collect::<Result<_, String>>()?;
    let Some(result) = compute.result().filter(|_| compute.params().is_empty()) else {
        return Err(format!("its compute has another form than `{COMPUTE}`"));
    };
    let result = Wit::read(&result).map_err(|e| format!("the result of `compute`: {e}"))?;
    Ok(FuncType { params, result: Some(result) })
}

fn reverse(member: &Member<'_>, ty: &FuncType) -> Result<Method, String> {
    let params = member.params();
    let same = params.len() == ty.params.len()
        && params.iter().zip(&ty.params).all(|((_, a), b)| Wit::read(a).as_ref() == Ok(&b.ty));
    if same { member.method() } else { Err("its `deaccumulate` takes other values than `accumulate`".to_owned()) }
}

fn merge(member: &Member<'_>, own: ResourceType) -> Result<Method, String> {
    match member.params().as_slice() {
        [(_, Type::Borrow(other))] if *other == own => member.method(),
        _ => Err(format!("its merge has another form than `{MERGE}`")),
    }
}

fn saving(
    save: Option<&Member<'_>>,
    restore: Option<&Member<'_>>,
    own: ResourceType,
) -> Result<Option<(ComponentExportIndex, ComponentExportIndex)>, String> {
    let (save, restore) = match (save, restore) {
        (None, None) => return Ok(None),
        (Some(save), Some(restore)) => (save, restore),
        (Some(_), None) => return Err(format!("it has `save` but lacks `{RESTORE}`")),
        (None, Some(_)) => return Err(format!("it has `restore` but lacks `{SAVE}`")),
    };
    let is_bytes = |ty: Option<&Type>| matches!(ty, Some(Type::List(list)) if matches!(list.ty(), Type::U8));
    if !save.params().is_empty() || !is_bytes(save.result().as_ref()) {
        return Err(format!("its save has another form than `{SAVE}`"));
    }
    let params = restore.params();
    let gives_self = matches!(restore.result(), Some(Type::Own(ty)) if ty == own);
    if params.len() != 1 || !is_bytes(params.first().map(|(_, ty)| ty)) || !gives_self {
        return Err(format!("its restore has another form than `{RESTORE}`"));
    }
    Ok(Some((save.index, restore.index)))
}

/// `resource mean { accumulate: func(x: f64); compute: func() -> f64; merge }`, on one line.
fn text(name: &str, ty: &FuncType, offers: Offers) -> String {
    let accumulate = FuncType { params: ty.params.clone(), result: None };
    let compute = FuncType { params: Vec::new(), result: ty.result.clone() };
    let mut text = format!("resource {name} {{ accumulate: {accumulate}; compute: {compute}");
    for (offered, name) in
        [(offers.deaccumulate, "; deaccumulate"), (offers.merge, "; merge"), (offers.save, "; save; restore")]
    {
        if offered {
            text.push_str(name);
        }
    }
    text + " }"
}
