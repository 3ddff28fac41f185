//! From bound relations to the parts of a plan.
//!
//! In: a relation over column ids. Out: parts over slots: only the columns that are read, cut at external calls, before
//! a stateful operator that reads an answer, and behind a stateful operator that an external call reads. Invariant: the
//! columns of a part are those that the next one reads, in the order of their ids, so equal text gives equal streams.
//! Not here: errors; a relation that reaches this file is valid.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;
use smol_str::{SmolStr, format_smolstr};

use super::relation::{ColumnId, ColumnInfo, Rel, Relation};
use super::tree::{each_slot, rewrite, rewrite_aggregate, rewrite_analytic};
use crate::batch::Column;
use crate::diagnostic::Span;
use crate::query::plan::{Expr, External, Match, Navigation, Node, Part, Scan};

/// Column ids that something above reads.
type Need = BTreeSet<ColumnId>;

/// A tree under construction and where its columns are.
struct Flow {
    node: Node,
    slots: FxHashMap<ColumnId, usize>,
    /// The external call whose answers `node` reads; then `node` is its tail.
    pending: Option<Pending>,
}

struct Pending {
    root: Node,
    function: SmolStr,
    span: Span,
}

struct Cut<'a> {
    infos: &'a [ColumnInfo],
    parts: Vec<Part>,
    /// Next operator id inside the part.
    next_id: u32,
}

/// The parts of a statement. `infos` names the columns of intermediate streams.
pub(super) fn cut(relation: &Relation, infos: &[ColumnInfo]) -> Vec<Part> {
    let mut cut = Cut { infos, parts: Vec::new(), next_id: 0 };
    let ids: Vec<ColumnId> = relation.columns.iter().map(|c| c.id).collect();
    let flow = cut.lower(&relation.rel, &ids.iter().copied().collect());
    let columns = relation.columns.iter().map(|c| Column { name: c.name.clone(), spread: c.spread }).collect();
    cut.finish(flow, &ids, columns);
    cut.parts
}

impl Cut<'_> {
    fn lower(&mut self, rel: &Rel, need: &Need) -> Flow {
        match rel {
            Rel::Scan { .. } => self.scan(rel, need),
            Rel::Filter { input, predicate } => {
                let flow = self.lower(input, &with(need, [predicate]));
                let predicate = flow.bind(predicate);
                flow.wrap(|input| Node::Filter { input, predicate })
            }
            Rel::Project { input, exprs } => self.project(input, exprs, need),
            Rel::Extend { input, exprs } => self.extend(input, exprs, need),
            Rel::Apply { input, outer, function, argument, out, span } => {
                let flow = self.lower(input, &with(need, [argument]));
                let argument = flow.bind(argument);
                let (outer, function, span) = (*outer, *function, *span);
                flow.append([*out], |input| Node::Apply { input, outer, function, argument, span })
            }
            Rel::Aggregate { .. } => self.aggregate(rel, need),
            Rel::Analytic { input, calls } => {
                let calls: Vec<_> = calls.iter().filter(|(id, _)| need.contains(id)).collect();
                if calls.is_empty() {
                    return self.lower(input, need);
                }
                let below = with(need, calls.iter().flat_map(|(_, call)| call.exprs()));
                let flow = self.lower(input, &below);
                let flow = self.settled(flow, &below);
                let id = self.id();
                let bound = calls.iter().map(|(_, call)| rewrite_analytic(call, &mut flow.binder())).collect();
                flow.append(calls.iter().map(|(id, _)| *id), |input| Node::Analytic { input, id, calls: bound })
            }
            Rel::Match { .. } => self.matches(rel, need),
            Rel::Join { .. } => self.join(rel, need),
            Rel::ReferenceJoin { .. } => self.reference_join(rel, need),
            Rel::Union { inputs, out } => self.union(inputs, out, need),
            Rel::External { input, function, argument, out, span } => {
                if !need.contains(out) {
                    return self.lower(input, need);
                }
                self.external(input, function, argument, *out, *span, need)
            }
        }
    }

    fn scan(&mut self, rel: &Rel, need: &Need) -> Flow {
        let Rel::Scan { input, columns, timestamp_by, over, schema } = rel else { return Flow::rows(0) };
        let need = with(need, timestamp_by.iter().chain(over));
        let kept: Vec<_> = columns.iter().filter(|(id, _)| need.contains(id)).collect();
        let slots = kept.iter().enumerate().map(|(slot, (id, _))| (*id, slot)).collect();
        let mut flow = Flow { node: Node::Rows { width: 0 }, slots, pending: None };
        flow.node = Node::Scan(Scan {
            input: input.clone(),
            columns: kept.iter().map(|(_, column)| column.clone()).collect(),
            timestamp_by: timestamp_by.as_ref().map(|e| flow.bind(e)),
            over: over.iter().map(|e| flow.bind(e)).collect(),
            id: self.id(),
            schema: schema.clone(),
        });
        flow
    }

    /// Columns that are only renamed cost nothing: their ids point at the slots below.
    fn project(&mut self, input: &Rel, exprs: &[(ColumnId, Expr)], need: &Need) -> Flow {
        let exprs: Vec<_> = exprs.iter().filter(|(id, _)| need.contains(id)).collect();
        let mut flow = self.lower(input, &with(&Need::new(), exprs.iter().map(|(_, e)| e)));
        let renamed: Option<FxHashMap<ColumnId, usize>> = exprs
            .iter()
            .map(|(id, e)| match e {
                Expr::Slot(inner) => flow.slots.get(inner).map(|slot| (*id, *slot)),
                _ => None,
            })
            .collect();
        if let Some(slots) = renamed {
            flow.slots = slots;
            return flow;
        }
        let bound = exprs.iter().map(|(_, e)| flow.bind(e)).collect();
        flow.replace(exprs.iter().map(|(id, _)| *id), bound)
    }

    fn extend(&mut self, input: &Rel, exprs: &[(ColumnId, Expr)], need: &Need) -> Flow {
        let added: Vec<_> = exprs.iter().filter(|(id, _)| need.contains(id)).collect();
        let flow = self.lower(input, &with(need, added.iter().map(|(_, e)| e)));
        if added.is_empty() {
            return flow;
        }
        let kept = flow.held(need);
        let mut bound: Vec<Expr> = kept.iter().map(|id| flow.slot(*id)).collect();
        bound.extend(added.iter().map(|(_, e)| flow.bind(e)));
        flow.replace(kept.into_iter().chain(added.iter().map(|(id, _)| *id)), bound)
    }

    fn aggregate(&mut self, rel: &Rel, need: &Need) -> Flow {
        let Rel::Aggregate { input, keys, windows, aggregates, window_id } = rel else { return Flow::rows(0) };
        let aggregates: Vec<_> = aggregates.iter().filter(|(id, _)| need.contains(id)).collect();
        let read = keys.iter().map(|(_, e)| e).chain(aggregates.iter().flat_map(|(_, a)| a.exprs()));
        let below = with(&Need::new(), read);
        let flow = self.lower(input, &below);
        let flow = self.settled(flow, &below);
        let node = Node::Aggregate {
            id: self.id(),
            keys: keys.iter().map(|(_, e)| flow.bind(e)).collect(),
            windows: windows.clone(),
            aggregates: aggregates.iter().map(|(_, a)| rewrite_aggregate(a, &mut flow.binder())).collect(),
            input: Box::new(flow.node),
        };
        let ids = keys.iter().map(|(id, _)| *id).chain(aggregates.iter().map(|(id, _)| *id)).chain([*window_id]);
        Flow { node, slots: ids.enumerate().map(|(slot, id)| (id, slot)).collect(), pending: None }
    }

    fn matches(&mut self, rel: &Rel, need: &Need) -> Flow {
        let Rel::Match { input, limit, partition_by, pattern, variables, navigations, define, measures } = rel else {
            return Flow::rows(0);
        };
        let measures: Vec<_> = measures.iter().filter(|(id, _)| need.contains(id)).collect();
        let looks = navigations.iter().filter_map(|(_, n)| n.argument.as_ref());
        let read = partition_by.iter().chain(looks).chain(define.iter().flatten()).chain(measures.iter().map(|(_, e)| e));
        let mut below = with(&Need::new(), read);
        below.retain(|id| !navigations.iter().any(|(look, _)| look == id));
        let flow = self.lower(input, &below);
        let flow = self.settled(flow, &below);
        let width = flow.node.width();
        let mut slots = flow.slots.clone();
        slots.extend(navigations.iter().enumerate().map(|(i, (id, _))| (*id, width + i)));
        let over_looks = |e: &Expr| rewrite(e, &mut binder(&slots));
        let plan = Match {
            limit: *limit,
            partition_by: partition_by.iter().map(|e| flow.bind(e)).collect(),
            pattern: pattern.clone(),
            variables: variables.clone(),
            navigations: navigations
                .iter()
                .map(|(_, n)| Navigation { argument: n.argument.as_ref().map(|e| flow.bind(e)), ..n.clone() })
                .collect(),
            define: define.iter().map(|e| e.as_ref().map(over_looks)).collect(),
            measures: measures.iter().map(|(_, e)| over_looks(e)).collect(),
            span: navigations.first().map(|(_, n)| n.span).unwrap_or_default(),
        };
        let node = Node::Match { input: Box::new(flow.node), id: self.id(), plan: Box::new(plan) };
        Flow { node, slots: measures.iter().enumerate().map(|(slot, (id, _))| (*id, slot)).collect(), pending: None }
    }

    fn join(&mut self, rel: &Rel, need: &Need) -> Flow {
        let Rel::Join { left, right, left_outer, bound, keys, on } = rel else { return Flow::rows(0) };
        let below = with(need, keys.iter().flat_map(|(a, b)| [a, b]).chain(on));
        let left = self.lower(left, &below);
        let left = self.settled(left, &below);
        let right = self.lower(right, &below);
        let id = self.id();
        let keys = keys.iter().map(|(a, b)| (left.bind(a), right.bind(b))).collect();
        let width = left.node.width();
        let mut slots = left.slots;
        slots.extend(right.slots.iter().map(|(id, slot)| (*id, slot + width)));
        let mut flow = Flow { node: left.node, slots, pending: None };
        let on = on.as_ref().map(|e| flow.bind(e));
        flow.node =
            Node::Join { left: Box::new(flow.node), right: Box::new(right.node), id, left_outer: *left_outer, bound: *bound, keys, on };
        flow
    }

    fn reference_join(&mut self, rel: &Rel, need: &Need) -> Flow {
        let Rel::ReferenceJoin { input, reference, left_outer, keys, on, out } = rel else { return Flow::rows(0) };
        let flow = self.lower(input, &with(need, keys.iter().flat_map(|(a, b)| [a, b]).chain(on)));
        // the right side of a key reads the reference record alone, which is its slot 0
        let record: FxHashMap<ColumnId, usize> = [(*out, 0)].into_iter().collect();
        let keys = keys.iter().map(|(a, b)| (flow.bind(a), rewrite(b, &mut binder(&record)))).collect();
        let width = flow.node.width();
        let mut slots = flow.slots;
        slots.insert(*out, width);
        let on = on.as_ref().map(|e| rewrite(e, &mut binder(&slots)));
        let node = Node::ReferenceJoin { input: Box::new(flow.node), reference: reference.clone(), left_outer: *left_outer, keys, on };
        Flow { node, slots, pending: flow.pending }
    }

    fn union(&mut self, inputs: &[(Rel, Vec<ColumnId>)], out: &[ColumnId], need: &Need) -> Flow {
        let kept: Vec<usize> = out.iter().enumerate().filter(|(_, id)| need.contains(id)).map(|(i, _)| i).collect();
        let mut nodes = Vec::with_capacity(inputs.len());
        for (rel, ids) in inputs {
            let ids: Vec<ColumnId> = kept.iter().filter_map(|i| ids.get(*i).copied()).collect();
            let flow = self.lower(rel, &ids.iter().copied().collect());
            let exprs = ids.iter().map(|id| flow.slot(*id)).collect();
            nodes.push(flow.replace(ids, exprs).node);
        }
        let slots = kept.iter().enumerate().filter_map(|(slot, i)| out.get(*i).map(|id| (*id, slot))).collect();
        Flow { node: Node::Union { inputs: nodes, id: self.id() }, slots, pending: None }
    }

    fn external(&mut self, input: &Rel, function: &SmolStr, argument: &Expr, out: ColumnId, span: Span, need: &Need) -> Flow {
        let below = with(need, [argument]);
        let mut flow = self.lower(input, &below);
        if flow.pending.is_some() || flow.node.is_stateful() {
            flow = self.close(flow, &below);
        }
        let kept = flow.held(need);
        let mut exprs: Vec<Expr> = kept.iter().map(|id| flow.slot(*id)).collect();
        exprs.push(flow.bind(argument));
        let ids: Vec<ColumnId> = kept.into_iter().chain([out]).collect();
        let flow = flow.replace(ids, exprs);
        let width = flow.node.width();
        let pending = Pending { root: flow.node, function: function.clone(), span };
        Flow { node: Node::Rows { width }, slots: flow.slots, pending: Some(pending) }
    }

    /// A flow that a stateful operator may read: answers of an external call are stored first.
    fn settled(&mut self, flow: Flow, need: &Need) -> Flow {
        if flow.pending.is_some() { self.close(flow, need) } else { flow }
    }

    /// Ends the part; the flow goes on from its stream.
    fn close(&mut self, flow: Flow, need: &Need) -> Flow {
        let ids = flow.held(need);
        let mut columns: Vec<Column> = Vec::with_capacity(ids.len());
        for (i, id) in ids.iter().enumerate() {
            let name = self.infos.get(*id).map(|info| info.name.clone()).unwrap_or_default();
            let taken = name.is_empty() || columns.iter().any(|c| c.name == name);
            columns.push(Column { name: if taken { format_smolstr!("{name}_{i}") } else { name }, spread: false });
        }
        self.finish(flow, &ids, columns);
        self.next_id = 0;
        let slots = ids.iter().enumerate().map(|(slot, id)| (*id, slot)).collect();
        Flow { node: Node::Rows { width: ids.len() }, slots, pending: None }
    }

    fn finish(&mut self, flow: Flow, ids: &[ColumnId], columns: Vec<Column>) {
        let exprs = ids.iter().map(|id| flow.slot(*id)).collect();
        let Flow { node, pending, .. } = flow.replace(ids.iter().copied(), exprs);
        let (root, external) = match pending {
            None => (node, None),
            Some(p) => (p.root, Some(External { function: p.function, span: p.span, tail: node })),
        };
        self.parts.push(Part { root, external, columns: columns.into() });
    }

    fn id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}

impl Flow {
    fn rows(width: usize) -> Flow {
        Flow { node: Node::Rows { width }, slots: FxHashMap::default(), pending: None }
    }

    fn slot(&self, id: ColumnId) -> Expr {
        self.bind(&Expr::Slot(id))
    }

    fn bind(&self, expr: &Expr) -> Expr {
        rewrite(expr, &mut self.binder())
    }

    fn binder(&self) -> impl FnMut(&Expr) -> Option<Expr> {
        binder(&self.slots)
    }

    /// The columns here that are read above, in the order of their ids.
    fn held(&self, need: &Need) -> Vec<ColumnId> {
        need.iter().copied().filter(|id| self.slots.contains_key(id)).collect()
    }

    fn wrap(self, make: impl FnOnce(Box<Node>) -> Node) -> Flow {
        Flow { node: make(Box::new(self.node)), ..self }
    }

    /// Puts an operator on top that appends the columns `ids`.
    fn append(self, ids: impl IntoIterator<Item = ColumnId>, make: impl FnOnce(Box<Node>) -> Node) -> Flow {
        let width = self.node.width();
        let mut flow = self.wrap(make);
        flow.slots.extend(ids.into_iter().enumerate().map(|(i, id)| (id, width + i)));
        flow
    }

    /// Puts a projection on top that gives exactly `exprs`, known as `ids`; none when the rows already look like that.
    fn replace(self, ids: impl IntoIterator<Item = ColumnId>, exprs: Vec<Expr>) -> Flow {
        let slots = ids.into_iter().enumerate().map(|(slot, id)| (id, slot)).collect();
        let unchanged = exprs.len() == self.node.width() && exprs.iter().enumerate().all(|(i, e)| matches!(e, Expr::Slot(s) if *s == i));
        let node = if unchanged { self.node } else { Node::Project { input: Box::new(self.node), exprs } };
        Flow { node, slots, pending: self.pending }
    }
}

/// Column ids to slots. An id that is not there cannot occur; it would read NULL.
fn binder(slots: &FxHashMap<ColumnId, usize>) -> impl FnMut(&Expr) -> Option<Expr> {
    |expr| match expr {
        Expr::Slot(id) => Some(slots.get(id).map_or(Expr::Const(crate::value::Value::Null), |slot| Expr::Slot(*slot))),
        _ => None,
    }
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
