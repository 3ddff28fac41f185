//! Events that wait for the gateway for longer than they may be late.
//!
//! In: a job and its plan. Out: a warning where nobody chose the late tolerance, a note where somebody did. Invariant:
//! only inputs are named whose rows would be other ones after a long outage. Not here: the policies themselves
//! (`engine`), how long a broker keeps what it has (`source`).

use std::time::Duration;

use crate::diagnostic::Diagnostic;
use crate::job::{InputSection, InputSettings, Job};
use crate::query::plan::{Expr, Node, Part, Plan, Statement};
use crate::settings::units::show_duration;
use crate::source::Keeps;

/// An input whose events may come later than `late_tolerance`, and statements to whose rows that matters.
#[derive(Debug)]
pub struct Outlived<'a> {
    input: &'a InputSection,
    keeps: Keeps,
    tolerance: Duration,
    /// Late events are moved; else they are dropped.
    adjusts: bool,
}

/// All of them, in the order of the job file.
pub fn outlived<'a>(job: &'a Job, plan: &Plan) -> Vec<Outlived<'a>> {
    let Some(late) = job.time.late_tolerance else { return Vec::new() };
    let tolerance = Duration::from_nanos(late.unsigned_abs().saturating_mul(100));
    let adjusts = job.time.adjust;
    let statements: Vec<&Statement> = plan.statements.iter().filter(|s| !adjusts || looks_at_time(s)).collect();
    let is_timed = |input: &InputSection| {
        let mut scans = statements.iter().flat_map(|s| &s.parts).flat_map(|part| part.root.scans());
        scans.any(|scan| scan.timestamp_by.is_some() && scan.input == input.name)
    };
    let mut found = Vec::new();
    for input in &job.inputs {
        let InputSettings::Stream(stream) = &input.kind else { continue };
        let keeps = stream.source.keeps();
        if keeps > Keeps::For(tolerance) && is_timed(input) {
            found.push(Outlived { input, keeps, tolerance, adjusts });
        }
    }
    found
}

/// Whether its rows depend on event time: a moved event would change them.
fn looks_at_time(statement: &Statement) -> bool {
    let time = |expr: &Expr| matches!(expr, Expr::Time);
    let looks = |node: &Node| match node {
        Node::Aggregate { .. } | Node::Analytic { .. } | Node::Match { .. } | Node::Join { .. } => true,
        _ => node.exprs().into_iter().any(|expr| expr.any(&time)),
    };
    let trees = |part: &Part| {
        let tail = part.external.as_ref().map(|external| &external.tail);
        std::iter::once(&part.root).chain(tail).any(|tree| tree.nodes().any(looks))
    };
    statement.parts.iter().any(trees)
}

impl Outlived<'_> {
    /// Where nobody chose the tolerance.
    pub fn warning(&self) -> Diagnostic {
        let tolerance = show_duration(self.tolerance);
        let title =
            format!("after an outage of over {tolerance} rows of `{}` differ from those without it", self.input.name);
        Diagnostic::warning(title, self.input.span).label(self.what_happens()).help(format!(
            "set `late_tolerance` in [job] to the longest outage that shall leave no trace, such as \"1h\": windows of \
             devices that fall silent close so much later; or write \"{tolerance}\" if that is what you want"
        ))
    }

    /// Where somebody chose it.
    pub fn note(&self) -> String {
        let tolerance = show_duration(self.tolerance);
        let name = &self.input.name;
        format!(
            "rows of `{name}` are those without an outage up to late_tolerance = \"{tolerance}\":\n      {}",
            self.what_happens()
        )
    }

    fn what_happens(&self) -> String {
        let kept = match self.keeps {
            Keeps::For(time) => format!("for up to {}", show_duration(time)),
            Keeps::Forever | Keeps::Nothing => "for as long as it takes".to_owned(),
        };
        let fate = if self.adjusts { "moved in time" } else { "dropped" };
        let tolerance = show_duration(self.tolerance);
        format!("events wait at the broker {kept}; those that come over {tolerance} late are {fate}")
    }
}
