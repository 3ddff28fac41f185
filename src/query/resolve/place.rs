//! Where an expression stands.
//!
//! In: a clause. Out: [`Place`], and its name for messages. Invariant: one variant for each clause that holds
//! expressions. Not here: what a clause may hold.

/// The clause an expression stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clause {
    Select,
    Where,
    GroupBy,
    Having,
    On,
    TimestampBy,
    Apply,
    PartitionBy,
    Match,
}

/// Where an expression stands, and inside which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) clause: Clause,
    /// Inside the argument of an aggregate.
    pub(super) in_aggregate: bool,
    /// Inside an analytic function.
    pub(super) in_analytic: bool,
}

impl Place {
    pub(super) fn clause(clause: Clause) -> Place {
        Place { clause, in_aggregate: false, in_analytic: false }
    }

    /// As in messages.
    pub(super) fn name(self) -> &'static str {
        match self.clause {
            _ if self.in_analytic => "an analytic function",
            _ if self.in_aggregate => "an aggregate",
            Clause::Select => "the SELECT list",
            Clause::Where => "WHERE",
            Clause::GroupBy => "GROUP BY",
            Clause::Having => "HAVING",
            Clause::On => "a JOIN condition",
            Clause::TimestampBy => "TIMESTAMP BY",
            Clause::Apply => "APPLY",
            Clause::PartitionBy => "PARTITION BY",
            Clause::Match => "MATCH_RECOGNIZE",
        }
    }
}
