//! From bound relations to the parts of a plan.
//!
//! In: a relation over column ids. Out: parts over slots: only the columns that are read, cut at external calls, before
//! a stateful operator that reads an answer, and behind a stateful operator that an external call reads. Invariant: the
//! columns of a part are those that the next one reads, in the order of their ids, so equal text gives equal streams.
//! Not here: errors of the query; a relation that reaches this file is valid, and where one is not, that is a fault of
//! forebay.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use smol_str::{SmolStr, format_smolstr};

use super::relation::{ColumnId, ColumnInfo, Rel, Relation};
use super::tree::{each_slot, null, rewrite, rewrite_aggregate, rewrite_analytic};
use crate::batch::Column;
use crate::diagnostic::Span;
use crate::query::plan::{Analytic, Expr, External, Match, Navigation, Node, Part, Scan};

/// The column that tells the substream of a row on its way behind a call; above all ids of the binder.
const SUBSTREAM: ColumnId = ColumnId::MAX;
/// The column that tells whether a row is for its call; below that of substreams.
const CALLED: ColumnId = ColumnId::MAX - 1;
/// What people read where a row has the argument of its call, and whether it is for the call.
const ARGUMENT: &str = "argument";
const IS_CALLED: &str = "is_called";

/// Column ids that something above reads.
type Need = BTreeSet<ColumnId>;

/// Where columns are.
type Slots = FxHashMap<ColumnId, usize>;

/// What a relation holds although the binder makes none like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CutFault {
    #[error("nothing gives column {0} of the plan")]
    NoColumn(ColumnId),
    #[error("a call that leaves the gateway stands in a branch of the plan")]
    ScoredInBranch,
    #[error("a relation was lowered as one of another kind")]
    OtherRelation,
}

/// A tree under construction and where its columns are.
struct Lowered {
    node: Node,
    slots: Slots,
    /// The external call whose answers `node` reads; then `node` is its tail.
    pending: Option<CallToCut>,
}

struct CallToCut {
    root: Node,
    names: Arc<[SmolStr]>,
    function: SmolStr,
    called: Option<usize>,
    span: Span,
}

struct Cut<'a> {
    infos: &'a [ColumnInfo],
    parts: Vec<Part>,
    /// Next operator id inside the part.
    next_id: u32,
    /// A scan has substreams.
    has_substreams: bool,
    /// Of the part under construction: the column that tells the substream of its rows.
    substream: Option<usize>,
}

/// The parts of a statement. `infos` names the columns of intermediate streams.
///
/// # Errors
/// The relation reads columns that nothing in it gives: a fault of forebay.
pub(super) fn cut(relation: &Relation, infos: &[ColumnInfo]) -> Result<Vec<Part>, CutFault> {
    let mut cut = Cut { infos, parts: Vec::new(), next_id: 0, has_substreams: false, substream: None };
    let ids: Vec<ColumnId> = relation.columns.iter().map(|c| c.id).collect();
    let lowered = cut.lower(&relation.rel, &ids.iter().copied().collect())?;
    let columns = relation.columns.iter().map(|c| Column { name: c.name.clone(), spread: c.spread }).collect();
    cut.finish(lowered, &ids, columns)?;
    Ok(cut.parts)
}

impl Cut<'_> {
    fn lower(&mut self, rel: &Rel, need: &Need) -> Result<Lowered, CutFault> {
        match rel {
            Rel::Scan { .. } => self.scan(rel, need),
            Rel::Filter { input, predicate } => {
                let below = self.lower(input, &with(need, [predicate]))?;
                let predicate = below.bind(predicate)?;
                Ok(below.wrap(|input| Node::Filter { input, predicate }))
            }
            Rel::Project { input, exprs } => self.project(input, exprs, need),
            Rel::Extend { input, exprs } => self.extend(input, exprs, need),
            Rel::Apply { input, outer, function, argument, out, span } => {
                let below = self.lower(input, &with(need, [argument]))?;
                let argument = below.bind(argument)?;
                let (outer, function, span) = (*outer, *function, *span);
                Ok(below.append([*out], |input| Node::Apply { input, outer, function, argument, span }))
            }
            Rel::Aggregate { .. } => self.aggregate(rel, need),
            Rel::Analytic { input, calls } => self.analytic(input, calls, need),
            Rel::Match { .. } => self.matches(rel, need),
            Rel::Join { .. } => self.join(rel, need),
            Rel::ReferenceJoin { .. } => self.reference_join(rel, need),
            Rel::Union { inputs, out } => self.union(inputs, out, need),
            Rel::External { input, out, .. } if !need.contains(out) => self.lower(input, need),
            Rel::External { .. } => self.external(rel, need),
        }
    }

    fn scan(&mut self, rel: &Rel, need: &Need) -> Result<Lowered, CutFault> {
        let Rel::Scan { input, columns, timestamp_by, over, schema } = rel else { return Err(CutFault::OtherRelation) };
        let need = with(need, timestamp_by.iter().chain(over));
        self.has_substreams |= !over.is_empty();
        let kept: Vec<_> = columns.iter().filter(|(id, _)| need.contains(id)).collect();
        let slots = numbered(kept.iter().map(|(id, _)| *id));
        let scan = Scan {
            input: input.clone(),
            columns: kept.iter().map(|(_, column)| column.clone()).collect(),
            timestamp_by: timestamp_by.as_ref().map(|e| bind(e, &slots)).transpose()?,
            over: over.iter().map(|e| bind(e, &slots)).collect::<Result<_, _>>()?,
            id: self.id(),
            schema: schema.clone(),
        };
        Ok(Lowered { node: Node::Scan(scan), slots, pending: None })
    }

    /// Columns that are only renamed cost nothing: their ids point at the slots below.
    fn project(&mut self, input: &Rel, exprs: &[(ColumnId, Expr)], need: &Need) -> Result<Lowered, CutFault> {
        let exprs: Vec<_> = exprs.iter().filter(|(id, _)| need.contains(id)).collect();
        let mut below = self.lower(input, &with(&Need::new(), exprs.iter().map(|(_, e)| e)))?;
        if exprs.iter().all(|(_, e)| matches!(e, Expr::Slot(_))) {
            let slot = |(id, e): &(ColumnId, Expr)| Ok((*id, below.slot_of(e)?));
            let kept = below.slots.get(&SUBSTREAM).map(|slot| (SUBSTREAM, *slot));
            below.slots = exprs.iter().map(|pair| slot(pair)).collect::<Result<_, CutFault>>()?;
            below.slots.extend(kept);
            return Ok(below);
        }
        let kept = below.held(&Need::new());
        let mut bound: Vec<Expr> = exprs.iter().map(|(_, e)| below.bind(e)).collect::<Result<_, _>>()?;
        bound.extend(below.all(&kept)?);
        Ok(below.replace(exprs.iter().map(|(id, _)| *id).chain(kept), bound))
    }

    fn extend(&mut self, input: &Rel, exprs: &[(ColumnId, Expr)], need: &Need) -> Result<Lowered, CutFault> {
        let added: Vec<_> = exprs.iter().filter(|(id, _)| need.contains(id)).collect();
        let below = self.lower(input, &with(need, added.iter().map(|(_, e)| e)))?;
        if added.is_empty() {
            return Ok(below);
        }
        let kept = below.held(need);
        let mut bound = below.all(&kept)?;
        for (_, e) in &added {
            bound.push(below.bind(e)?);
        }
        Ok(below.replace(kept.into_iter().chain(added.iter().map(|(id, _)| *id)), bound))
    }

    fn analytic(&mut self, input: &Rel, calls: &[(ColumnId, Analytic)], need: &Need) -> Result<Lowered, CutFault> {
        let calls: Vec<_> = calls.iter().filter(|(id, _)| need.contains(id)).collect();
        if calls.is_empty() {
            return self.lower(input, need);
        }
        let read = with(need, calls.iter().flat_map(|(_, call)| call.exprs()));
        let below = self.settled(input, &read)?;
        let id = self.id();
        let bound = below.rewritten(|f| calls.iter().map(|(_, call)| rewrite_analytic(call, f)).collect())?;
        Ok(below.append(calls.iter().map(|(id, _)| *id), |input| Node::Analytic { input, id, calls: bound }))
    }

    fn aggregate(&mut self, rel: &Rel, need: &Need) -> Result<Lowered, CutFault> {
        let Rel::Aggregate { input, keys, windows, aggregates, window_id } = rel else {
            return Err(CutFault::OtherRelation);
        };
        let aggregates: Vec<_> = aggregates.iter().filter(|(id, _)| need.contains(id)).collect();
        let read = keys.iter().map(|(_, e)| e).chain(aggregates.iter().flat_map(|(_, a)| a.exprs()));
        let below = self.settled(input, &with(&Need::new(), read))?;
        let node = Node::Aggregate {
            id: self.id(),
            keys: keys.iter().map(|(_, e)| below.bind(e)).collect::<Result<_, _>>()?,
            windows: windows.clone(),
            aggregates: below.rewritten(|f| aggregates.iter().map(|(_, a)| rewrite_aggregate(a, f)).collect())?,
            input: Box::new(below.node),
        };
        let ids = keys.iter().map(|(id, _)| *id).chain(aggregates.iter().map(|(id, _)| *id)).chain([*window_id]);
        Ok(Lowered { node, slots: numbered(ids), pending: None })
    }

    fn matches(&mut self, rel: &Rel, need: &Need) -> Result<Lowered, CutFault> {
        let Rel::Match { input, limit, partition_by, pattern, variables, navigations, define, measures } = rel else {
            return Err(CutFault::OtherRelation);
        };
        let measures: Vec<_> = measures.iter().filter(|(id, _)| need.contains(id)).collect();
        let looks = navigations.iter().filter_map(|(_, n)| n.argument.as_ref());
        let conditions = define.iter().flatten();
        let read = partition_by.iter().chain(looks).chain(conditions).chain(measures.iter().map(|(_, e)| e));
        let mut read = with(&Need::new(), read);
        read.retain(|id| !navigations.iter().any(|(look, _)| look == id));
        let below = self.settled(input, &read)?;
        let width = below.node.width();
        let mut slots = below.slots.clone();
        slots.extend(navigations.iter().enumerate().map(|(i, (id, _))| (*id, width + i)));
        let navigation = |n: &Navigation| {
            let argument = n.argument.as_ref().map(|e| below.bind(e)).transpose()?;
            Ok(Navigation { argument, ..n.clone() })
        };
        let plan = Match {
            limit: *limit,
            partition_by: partition_by.iter().map(|e| below.bind(e)).collect::<Result<_, _>>()?,
            pattern: pattern.clone(),
            variables: variables.clone(),
            navigations: navigations.iter().map(|(_, n)| navigation(n)).collect::<Result<_, CutFault>>()?,
            define: define.iter().map(|e| e.as_ref().map(|e| bind(e, &slots)).transpose()).collect::<Result<_, _>>()?,
            measures: measures.iter().map(|(_, e)| bind(e, &slots)).collect::<Result<_, _>>()?,
            span: navigations.first().map(|(_, n)| n.span).unwrap_or_default(),
        };
        let node = Node::Match { input: Box::new(below.node), id: self.id(), plan: Box::new(plan) };
        Ok(Lowered { node, slots: numbered(measures.iter().map(|(id, _)| *id)), pending: None })
    }

    fn join(&mut self, rel: &Rel, need: &Need) -> Result<Lowered, CutFault> {
        let Rel::Join { left, right, left_outer, bound, keys, on } = rel else { return Err(CutFault::OtherRelation) };
        let read = with(need, keys.iter().flat_map(|(a, b)| [a, b]).chain(on));
        let left = self.settled(left, &read)?;
        let right = self.lower(right, &read)?;
        if right.pending.is_some() {
            return Err(CutFault::ScoredInBranch);
        }
        let id = self.id();
        let keys = keys.iter().map(|(a, b)| Ok((left.bind(a)?, right.bind(b)?))).collect::<Result<_, CutFault>>()?;
        let width = left.node.width();
        let mut slots = left.slots;
        slots.extend(right.slots.iter().map(|(id, slot)| (*id, slot + width)));
        let on = on.as_ref().map(|e| bind(e, &slots)).transpose()?;
        let (left, right) = (Box::new(left.node), Box::new(right.node));
        let node = Node::Join { left, right, id, left_outer: *left_outer, bound: *bound, keys, on };
        Ok(Lowered { node, slots, pending: None })
    }

    fn reference_join(&mut self, rel: &Rel, need: &Need) -> Result<Lowered, CutFault> {
        let Rel::ReferenceJoin { input, reference, left_outer, keys, on, out } = rel else {
            return Err(CutFault::OtherRelation);
        };
        let below = self.lower(input, &with(need, keys.iter().flat_map(|(a, b)| [a, b]).chain(on)))?;
        // the right side of a key reads the reference record alone, which is its slot 0
        let record = numbered([*out]);
        let keys =
            keys.iter().map(|(a, b)| Ok((below.bind(a)?, bind(b, &record)?))).collect::<Result<_, CutFault>>()?;
        let width = below.node.width();
        let mut slots = below.slots;
        slots.insert(*out, width);
        let on = on.as_ref().map(|e| bind(e, &slots)).transpose()?;
        let (input, reference) = (Box::new(below.node), reference.clone());
        let node = Node::ReferenceJoin { input, reference, left_outer: *left_outer, keys, on };
        Ok(Lowered { node, slots, pending: below.pending })
    }

    fn union(&mut self, inputs: &[(Rel, Vec<ColumnId>)], out: &[ColumnId], need: &Need) -> Result<Lowered, CutFault> {
        let kept: Vec<(usize, ColumnId)> =
            out.iter().copied().enumerate().filter(|(_, id)| need.contains(id)).collect();
        let mut nodes = Vec::with_capacity(inputs.len());
        for (rel, ids) in inputs {
            let of_branch = |(i, id): &(usize, ColumnId)| ids.get(*i).copied().ok_or(CutFault::NoColumn(*id));
            let ids: Vec<ColumnId> = kept.iter().map(of_branch).collect::<Result<_, _>>()?;
            let branch = self.lower(rel, &ids.iter().copied().collect())?;
            if branch.pending.is_some() {
                return Err(CutFault::ScoredInBranch);
            }
            let exprs = branch.all(&ids)?;
            nodes.push(branch.replace(ids, exprs).node);
        }
        let slots = numbered(kept.iter().map(|(_, id)| *id));
        Ok(Lowered { node: Node::Union { inputs: nodes, id: self.id() }, slots, pending: None })
    }

    fn external(&mut self, rel: &Rel, need: &Need) -> Result<Lowered, CutFault> {
        let Rel::External { input, function, argument, guard, out, span } = rel else {
            return Err(CutFault::OtherRelation);
        };
        let read = with(need, guard.iter().chain([argument]));
        let mut below = self.lower(input, &read)?;
        if below.pending.is_some() || below.node.is_stateful() {
            below = self.close(below, &read)?;
        }
        let mut kept = below.held(need);
        kept.extend(self.has_substreams.then_some(SUBSTREAM));
        let mut exprs = below.all(&kept)?;
        let mut names = self.names(&kept)?;
        let mut name = |wanted: &str| {
            let is_taken = names.iter().any(|name| name == wanted);
            names.push(if is_taken { format_smolstr!("{wanted}_{}", names.len()) } else { wanted.into() });
        };
        let mut argument = below.bind(argument)?;
        let called = guard.as_ref().map(|_| exprs.len());
        if let Some(guard) = guard {
            let guard = below.bind(guard)?;
            name(IS_CALLED);
            exprs.push(guard.clone());
            // for the other rows nothing of it may be evaluated
            argument = Expr::Case { branches: vec![(guard, argument)], otherwise: Box::new(null()) };
        }
        name(ARGUMENT);
        exprs.push(argument);
        let ids: Vec<ColumnId> = kept.into_iter().chain(called.map(|_| CALLED)).chain([*out]).collect();
        let root = below.replace(ids, exprs);
        let width = root.node.width();
        let (names, function, span) = (names.into(), function.clone(), *span);
        let pending = CallToCut { root: root.node, names, function, called, span };
        Ok(Lowered { node: Node::Rows { width }, slots: root.slots, pending: Some(pending) })
    }

    /// Rows that a stateful operator may read: answers of an external call are stored first.
    fn settled(&mut self, input: &Rel, need: &Need) -> Result<Lowered, CutFault> {
        let lowered = self.lower(input, need)?;
        if lowered.pending.is_some() { self.close(lowered, need) } else { Ok(lowered) }
    }

    /// Ends the part; what is above goes on from its stream.
    fn close(&mut self, lowered: Lowered, need: &Need) -> Result<Lowered, CutFault> {
        let mut ids = lowered.held(need);
        if self.has_substreams && !ids.contains(&SUBSTREAM) {
            ids.push(SUBSTREAM);
        }
        let columns = self.names(&ids)?.into_iter().map(|name| Column { name, spread: false }).collect();
        self.finish(lowered, &ids, columns)?;
        self.next_id = 0;
        let node = Node::Rows { width: ids.len() };
        let mut slots = numbered(ids);
        // what runs for a substream knows which it is
        self.substream = slots.remove(&SUBSTREAM);
        Ok(Lowered { node, slots, pending: None })
    }

    /// A name of its own for each column.
    fn names(&self, ids: &[ColumnId]) -> Result<Vec<SmolStr>, CutFault> {
        let mut names: Vec<SmolStr> = Vec::with_capacity(ids.len());
        for (i, id) in ids.iter().enumerate() {
            let name = match self.infos.get(*id) {
                Some(info) => info.name.clone(),
                None if *id == SUBSTREAM => SmolStr::new_static("substream"),
                None => return Err(CutFault::NoColumn(*id)),
            };
            let taken = name.is_empty() || names.contains(&name);
            names.push(if taken { format_smolstr!("{name}_{i}") } else { name });
        }
        Ok(names)
    }

    fn finish(&mut self, lowered: Lowered, ids: &[ColumnId], columns: Vec<Column>) -> Result<(), CutFault> {
        let exprs = lowered.all(ids)?;
        let Lowered { node, pending, .. } = lowered.replace(ids.iter().copied(), exprs);
        let (root, external) = match pending {
            None => (node, None),
            Some(CallToCut { root, names, function, called, span }) => {
                (root, Some(External { function, called, span, names, tail: node }))
            }
        };
        self.parts.push(Part { root, external, substream: self.substream, columns: columns.into() });
        Ok(())
    }

    fn id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}

impl Lowered {
    fn bind(&self, expr: &Expr) -> Result<Expr, CutFault> {
        bind(expr, &self.slots)
    }

    /// Columns, each as an expression.
    fn all(&self, ids: &[ColumnId]) -> Result<Vec<Expr>, CutFault> {
        let is_own = |id: &ColumnId| *id == SUBSTREAM && !self.slots.contains_key(id);
        ids.iter().map(|id| if is_own(id) { Ok(Expr::Substream) } else { self.bind(&Expr::Slot(*id)) }).collect()
    }

    /// The slot of an expression that is a column.
    fn slot_of(&self, expr: &Expr) -> Result<usize, CutFault> {
        match expr {
            Expr::Slot(id) => self.slots.get(id).copied().ok_or(CutFault::NoColumn(*id)),
            _ => Err(CutFault::OtherRelation),
        }
    }

    /// What `rewrite` makes with the columns here.
    fn rewritten<T>(&self, rewrite: impl FnOnce(&mut dyn FnMut(&Expr) -> Option<Expr>) -> T) -> Result<T, CutFault> {
        rewritten(&self.slots, rewrite)
    }

    /// The columns here that are read above, in the order of their ids, and the one that tells the substream.
    fn held(&self, need: &Need) -> Vec<ColumnId> {
        need.iter().copied().chain([SUBSTREAM]).filter(|id| self.slots.contains_key(id)).collect()
    }

    fn wrap(self, make: impl FnOnce(Box<Node>) -> Node) -> Lowered {
        Lowered { node: make(Box::new(self.node)), ..self }
    }

    /// Puts an operator on top that appends the columns `ids`.
    fn append(self, ids: impl IntoIterator<Item = ColumnId>, make: impl FnOnce(Box<Node>) -> Node) -> Lowered {
        let width = self.node.width();
        let mut lowered = self.wrap(make);
        lowered.slots.extend(ids.into_iter().enumerate().map(|(i, id)| (id, width + i)));
        lowered
    }

    /// Puts a projection on top that gives exactly `exprs`, known as `ids`; none when the rows already look like that.
    fn replace(self, ids: impl IntoIterator<Item = ColumnId>, exprs: Vec<Expr>) -> Lowered {
        let in_place = |(i, e): (usize, &Expr)| matches!(e, Expr::Slot(s) if *s == i);
        let unchanged = exprs.len() == self.node.width() && exprs.iter().enumerate().all(in_place);
        let node = if unchanged { self.node } else { Node::Project { input: Box::new(self.node), exprs } };
        Lowered { node, slots: numbered(ids), pending: self.pending }
    }
}

/// Column ids by the order in which they stand.
fn numbered(ids: impl IntoIterator<Item = ColumnId>) -> Slots {
    ids.into_iter().enumerate().map(|(slot, id)| (id, slot)).collect()
}

/// Column ids to slots.
fn bind(expr: &Expr, slots: &Slots) -> Result<Expr, CutFault> {
    rewritten(slots, |f| rewrite(expr, f))
}

fn rewritten<T>(
    slots: &Slots,
    rewrite: impl FnOnce(&mut dyn FnMut(&Expr) -> Option<Expr>) -> T,
) -> Result<T, CutFault> {
    let mut missing = None;
    let made = rewrite(&mut |expr| match expr {
        Expr::Slot(id) => match slots.get(id) {
            Some(slot) => Some(Expr::Slot(*slot)),
            None => {
                missing = Some(*id);
                None
            }
        },
        _ => None,
    });
    missing.map_or(Ok(made), |id| Err(CutFault::NoColumn(id)))
}

fn with<'e>(need: &Need, exprs: impl IntoIterator<Item = &'e Expr>) -> Need {
    let mut need = need.clone();
    for expr in exprs {
        each_slot(expr, &mut |id| {
            need.insert(id);
        });
    }
    need
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::plan::ScanColumn;

    fn scan() -> Box<Rel> {
        let columns = vec![(7, ScanColumn::Field("v".into()))];
        Box::new(Rel::Scan { input: "a".into(), columns, timestamp_by: None, over: Vec::new(), schema: None })
    }

    fn lowered(rel: &Rel, need: &[ColumnId]) -> Result<Node, CutFault> {
        let mut cut = Cut { infos: &[], parts: Vec::new(), next_id: 0, has_substreams: false, substream: None };
        cut.lower(rel, &need.iter().copied().collect()).map(|lowered| lowered.node)
    }

    #[test]
    fn a_column_that_nothing_gives_is_a_fault_and_not_null() {
        let filter = |id| Rel::Filter { input: scan(), predicate: Expr::Not(Box::new(Expr::Slot(id))) };
        assert!(lowered(&filter(7), &[7]).is_ok());
        assert_eq!(lowered(&filter(8), &[7]).unwrap_err(), CutFault::NoColumn(8));
        let renamed = |id| Rel::Project { input: scan(), exprs: vec![(9, Expr::Slot(id))] };
        assert!(lowered(&renamed(7), &[9]).is_ok());
        assert_eq!(lowered(&renamed(8), &[9]).unwrap_err(), CutFault::NoColumn(8));
    }

    #[test]
    fn a_branch_of_a_union_with_too_few_columns_is_a_fault() {
        let union = |ids: Vec<ColumnId>| Rel::Union { inputs: vec![(*scan(), ids)], out: vec![20] };
        assert!(lowered(&union(vec![7]), &[20]).is_ok());
        assert_eq!(lowered(&union(Vec::new()), &[20]).unwrap_err(), CutFault::NoColumn(20));
    }

    #[test]
    fn a_scored_branch_is_a_fault_and_its_answers_are_not_forgotten() {
        let argument = Expr::Slot(7);
        let (function, span) = ("score".into(), Span::default());
        let scored = Rel::External { input: scan(), function, argument, guard: None, out: 9, span };
        let union = Rel::Union { inputs: vec![(scored, vec![9])], out: vec![20] };
        assert_eq!(lowered(&union, &[20]).unwrap_err(), CutFault::ScoredInBranch);
    }
}
