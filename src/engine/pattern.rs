//! The matcher of MATCH_RECOGNIZE: which rows in a row a pattern takes, and as which variables.
//!
//! In: a pattern over variables, and a question (does this row satisfy this variable, given the rows before?). Out: the
//! first match in the order of preference, or that there is none, or that the rows to come decide. Invariant: the
//! answer is final whatever comes later, and no attempt takes more than [`STEPS_MAX`] steps. Not here: rows, time,
//! measures.
//!
//! Preference is that of regular expressions: the left branch of `|` first, a greedy quantifier one more round first, a
//! reluctant one going on first. Conditions may look at what earlier rows were taken as, so ways to a place are not
//! alike and are tried one after another (backtracking), which is what the bound is for.

use crate::query::plan::Pattern;

/// Steps of one attempt: several for each of the rows it may look at, and room for going back.
pub(super) const STEPS_MAX: usize = 50_000;

/// A variable of DEFINE, by its place.
type VariableIndex = usize;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Instruction {
    /// Takes a row; `None` is any.
    Take(Option<VariableIndex>),
    /// Tries the first place, and the second if that leads nowhere.
    Split(usize, usize),
    Jump(usize),
    /// Begins the rounds of mark `n`: the first may take nothing.
    Clear(usize),
    /// Goes on only if a row was taken since mark `n`: a round that takes nothing is not repeated.
    Mark(usize),
    Progress(usize),
    Done,
}

/// A pattern made ready to run.
#[derive(Clone, Debug)]
pub(super) struct Program {
    steps: Vec<Instruction>,
    marks: usize,
}

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum MatchAttempt {
    /// What each row from the start on was taken as.
    Match(Vec<Option<VariableIndex>>),
    /// No rows from the start on match.
    Failed,
    /// Rows to come decide.
    Open,
    /// The attempt was given up after [`STEPS_MAX`] steps.
    TooComplex,
    /// The program led to a step that it does not have.
    Lost,
}

/// Whether a row, by its number, may be taken as a variable after the rows before it.
type Question<'q, E> = dyn FnMut(VariableIndex, usize, &[Option<VariableIndex>]) -> Result<bool, E> + 'q;

/// A way not tried yet.
struct Untried {
    step: usize,
    taken: usize,
    marks: Vec<usize>,
}

impl Program {
    pub(super) fn new(pattern: &Pattern) -> Program {
        let mut program = Program { steps: Vec::new(), marks: 0 };
        program.add(pattern);
        program.steps.push(Instruction::Done);
        program
    }

    fn add(&mut self, pattern: &Pattern) {
        match pattern {
            Pattern::Variable(variable) => self.steps.push(Instruction::Take(Some(*variable))),
            Pattern::Any => self.steps.push(Instruction::Take(None)),
            Pattern::Concat(items) => items.iter().for_each(|item| self.add(item)),
            Pattern::Either(branches) => self.either(branches),
            Pattern::Repeat { of, at_least_once, many, greedy } => self.repeat(of, *at_least_once, *many, *greedy),
        }
    }

    fn either(&mut self, branches: &[Pattern]) {
        // the parser gives none without branches; a step behind the program's end makes each attempt say so
        let Some((last, rest)) = branches.split_last() else {
            return self.steps.push(Instruction::Jump(usize::MAX));
        };
        let mut ends = Vec::new();
        for branch in rest {
            let split = self.blank();
            self.add(branch);
            ends.push(self.blank());
            self.set(split, Instruction::Split(split + 1, self.steps.len()));
        }
        self.add(last);
        let end = self.steps.len();
        ends.into_iter().for_each(|at| self.set(at, Instruction::Jump(end)));
    }

    /// The body stands once however it is repeated: bodies of bodies would double the program at each level.
    fn repeat(&mut self, of: &Pattern, at_least_once: bool, many: bool, greedy: bool) {
        let both = |round: usize, end: usize| {
            if greedy { Instruction::Split(round, end) } else { Instruction::Split(end, round) }
        };
        let mark = self.marks;
        self.marks += usize::from(many);
        match (at_least_once, many) {
            (true, false) => self.add(of),
            (false, false) => {
                let split = self.blank();
                self.add(of);
                self.set(split, both(split + 1, self.steps.len()));
            }
            (false, true) => {
                let split = self.blank();
                self.steps.push(Instruction::Mark(mark));
                self.add(of);
                self.steps.push(Instruction::Progress(mark));
                self.steps.push(Instruction::Jump(split));
                self.set(split, both(split + 1, self.steps.len()));
            }
            (true, true) => {
                self.steps.push(Instruction::Clear(mark));
                let round = self.steps.len();
                self.add(of);
                self.steps.push(Instruction::Progress(mark));
                let split = self.blank();
                self.steps.push(Instruction::Mark(mark));
                self.steps.push(Instruction::Jump(round));
                self.set(split, both(split + 1, self.steps.len()));
            }
        }
    }

    fn blank(&mut self) -> usize {
        self.steps.push(Instruction::Done);
        self.steps.len() - 1
    }

    fn set(&mut self, at: usize, step: Instruction) {
        if let Some(slot) = self.steps.get_mut(at) {
            *slot = step;
        }
    }

    /// Tries the rows from a start on. `rows`: how many there are now; `ended`: no more will come. `holds` is asked
    /// with the variable, the number of the row, and what the rows before were taken as.
    ///
    /// # Errors
    /// That of `holds`.
    pub(super) fn run<E>(&self, rows: usize, ended: bool, holds: &mut Question<'_, E>) -> Result<MatchAttempt, E> {
        let mut ways = vec![Untried { step: 0, taken: 0, marks: vec![usize::MAX; self.marks] }];
        let mut taken: Vec<Option<VariableIndex>> = Vec::new();
        let mut left = STEPS_MAX;
        while let Some(Untried { mut step, taken: back_to, mut marks }) = ways.pop() {
            taken.truncate(back_to);
            loop {
                let Some(fewer) = left.checked_sub(1) else { return Ok(MatchAttempt::TooComplex) };
                left = fewer;
                let Some(next) = self.steps.get(step).copied() else { return Ok(MatchAttempt::Lost) };
                match next {
                    // a match of no rows is none
                    Instruction::Done if taken.is_empty() => break,
                    Instruction::Done => return Ok(MatchAttempt::Match(taken)),
                    Instruction::Jump(to) => step = to,
                    Instruction::Split(first, second) => {
                        ways.push(Untried { step: second, taken: taken.len(), marks: marks.clone() });
                        step = first;
                    }
                    Instruction::Clear(mark) => {
                        set(&mut marks, mark, usize::MAX);
                        step += 1;
                    }
                    Instruction::Mark(mark) => {
                        set(&mut marks, mark, taken.len());
                        step += 1;
                    }
                    Instruction::Progress(mark) if marks.get(mark) == Some(&taken.len()) => break,
                    Instruction::Progress(_) => step += 1,
                    Instruction::Take(_) if taken.len() >= rows && ended => break,
                    Instruction::Take(_) if taken.len() >= rows => return Ok(MatchAttempt::Open),
                    Instruction::Take(variable) => {
                        if let Some(variable) = variable
                            && !holds(variable, taken.len(), &taken)?
                        {
                            break;
                        }
                        taken.push(variable);
                        step += 1;
                    }
                }
            }
        }
        Ok(MatchAttempt::Failed)
    }
}

fn set(marks: &mut [usize], mark: usize, to: usize) {
    if let Some(at) = marks.get_mut(mark) {
        *at = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All ways a pattern may take up to `n` rows, in the order of preference.
    fn ways(pattern: &Pattern, n: usize) -> Vec<Vec<Option<VariableIndex>>> {
        match pattern {
            Pattern::Any | Pattern::Variable(_) if n == 0 => vec![],
            Pattern::Any => vec![vec![None]],
            Pattern::Variable(v) => vec![vec![Some(*v)]],
            Pattern::Either(branches) => branches.iter().flat_map(|b| ways(b, n)).collect(),
            Pattern::Concat(items) => items.iter().fold(vec![vec![]], |heads, item| {
                heads.iter().flat_map(|head| join(head, ways(item, n - head.len()))).collect()
            }),
            Pattern::Repeat { of, at_least_once, many, greedy } => {
                let rounds = |head: &Vec<Option<VariableIndex>>| more(of, head, n, *many, *greedy);
                match (at_least_once, many) {
                    (false, _) => rounds(&vec![]),
                    (true, false) => ways(of, n),
                    (true, true) => ways(of, n).iter().flat_map(rounds).collect(),
                }
            }
        }
    }

    fn join(head: &[Option<VariableIndex>], tails: Vec<Vec<Option<VariableIndex>>>) -> Vec<Vec<Option<VariableIndex>>> {
        tails.into_iter().map(|tail| [head, &tail].concat()).collect()
    }

    fn more(
        of: &Pattern,
        head: &[Option<VariableIndex>],
        n: usize,
        many: bool,
        greedy: bool,
    ) -> Vec<Vec<Option<VariableIndex>>> {
        let mut on = Vec::new();
        for next in join(head, ways(of, n - head.len())) {
            if !many {
                on.push(next);
            } else if next.len() > head.len() {
                on.extend(more(of, &next, n, many, greedy));
            }
        }
        if greedy {
            on.push(head.to_vec())
        } else {
            on.insert(0, head.to_vec())
        }
        on
    }

    struct Random(u64);
    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((self.0 >> 33) as usize) % n
        }
        fn pattern(&mut self, depth: usize) -> Pattern {
            match if depth == 0 { self.below(2) } else { self.below(7) } {
                0 => Pattern::Variable(self.below(3)),
                1 => {
                    if self.below(4) == 0 {
                        Pattern::Any
                    } else {
                        Pattern::Variable(self.below(3))
                    }
                }
                2 | 3 => Pattern::Concat((0..1 + self.below(3)).map(|_| self.pattern(depth - 1)).collect()),
                4 => Pattern::Either((0..1 + self.below(3)).map(|_| self.pattern(depth - 1)).collect()),
                _ => Pattern::Repeat {
                    of: Box::new(self.pattern(depth - 1)),
                    at_least_once: self.below(2) == 0,
                    many: self.below(2) == 0,
                    greedy: self.below(2) == 0,
                },
            }
        }
    }

    /// A condition that looks at the row and at how many rows were taken as the first variable.
    fn satisfies(variable: VariableIndex, row: usize, values: &[usize], before: &[Option<VariableIndex>]) -> bool {
        let firsts = before.iter().filter(|v| **v == Some(0)).count();
        match variable {
            0 => values[row] > 0,
            1 => values[row] != 1 && firsts < 3,
            _ => values[row] <= firsts,
        }
    }

    #[test]
    fn the_first_way_by_preference_is_found_and_no_answer_is_taken_back() {
        let mut random = Random(7);
        for _ in 0..20_000 {
            let pattern = random.pattern(3);
            let values: Vec<usize> = (0..random.below(6)).map(|_| random.below(3)).collect();
            let expected = ways(&pattern, values.len()).into_iter().find(|way| {
                !way.is_empty() && (0..way.len()).all(|i| way[i].is_none_or(|v| satisfies(v, i, &values, &way[..i])))
            });
            let program = Program::new(&pattern);
            let run = |rows: usize, ended: bool| {
                program.run::<()>(rows, ended, &mut |v, i, before| Ok(satisfies(v, i, &values, before))).unwrap()
            };
            let whole = run(values.len(), true);
            let given = match &whole {
                MatchAttempt::Match(taken) => Some(taken.clone()),
                other => {
                    assert_eq!(*other, MatchAttempt::Failed);
                    None
                }
            };
            assert_eq!(given, expected, "{pattern:?} over {values:?}");
            for rows in 0..values.len() {
                let early = run(rows, false);
                assert!(
                    early == MatchAttempt::Open || early == whole,
                    "{pattern:?} over {values:?}: {early:?} after {rows}"
                );
            }
        }
    }

    #[test]
    fn a_program_is_as_long_as_its_pattern() {
        let mut pattern = Pattern::Variable(0);
        for level in 0..60 {
            pattern =
                Pattern::Repeat { of: Box::new(pattern), at_least_once: true, many: true, greedy: level % 2 == 0 };
        }
        let program = Program::new(&pattern);
        assert_eq!(program.steps.len(), 60 * 5 + 2);
        let outcome = program.run::<()>(1, true, &mut |v, _, _| Ok(v == 0)).unwrap();
        assert_eq!(outcome, MatchAttempt::Match(vec![Some(0)]));
    }

    #[test]
    fn a_catastrophic_pattern_is_given_up() {
        let a = || Box::new(Pattern::Variable(0));
        let many = |of| Pattern::Repeat { of, at_least_once: true, many: true, greedy: true };
        let pattern = Pattern::Concat(vec![many(Box::new(many(a()))), Pattern::Variable(1)]);
        let outcome = Program::new(&pattern).run::<()>(60, true, &mut |v, _, _| Ok(v == 0)).unwrap();
        assert_eq!(outcome, MatchAttempt::TooComplex);
    }
}
