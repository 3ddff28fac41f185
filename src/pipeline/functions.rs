//! New versions of functions for a job that runs.
//!
//! In: looks at the functions' files. Out: versions for the executors, or why one is not taken. Invariant: a version is
//! given out only when the running plan is the one that the query makes with it, its grants suffice and an instance of
//! it started; all functions of one file change together or not at all. Not here: what executors do with it
//! (`udf::swap`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::fallbacks;
use super::prepare::Prepared;
use crate::job::{FunctionSettings, Job};
use crate::query::catalog::{self, Catalog, Offers};
use crate::reference::{LookError, Looked, Watched};
use crate::udf::{FunctionBinding, Host, UdfError, Versions};

/// How often files are looked at: soon enough for a person who waits, and a `stat` costs next to nothing.
const LOOK: Duration = Duration::from_secs(1);
/// As `udf` takes files.
const FILE_BYTES_MAX: usize = 256 << 20;

/// What a look at all files came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LookOutcome {
    /// All are those in use.
    #[default]
    Same,
    /// There was a new version, and it is in use or was refused for good.
    Done,
    /// One is valid, but the query makes another plan with it: only a start of the job can take it.
    AnotherPlan,
}

/// The task's end that others hold.
#[derive(Clone, Debug)]
pub struct Looks(mpsc::Sender<oneshot::Sender<LookOutcome>>);

impl Looks {
    /// Looks at all files now, whether they are known to rest or not.
    pub async fn now(&self) -> LookOutcome {
        let (answer, answered) = oneshot::channel();
        if self.0.send(answer).await.is_err() {
            return LookOutcome::Same;
        }
        answered.await.unwrap_or_default()
    }
}

/// Starts to watch the files of a job's functions.
pub fn start(
    job: &Job,
    prepared: &Prepared,
    versions: &Versions,
    ended: CancellationToken,
) -> (Looks, tokio::task::JoinHandle<()>) {
    let (looks, asked) = mpsc::channel(1);
    let mut files = Files {
        files: files(job, prepared),
        check: Arc::new(Check {
            catalog: prepared.catalog.clone(),
            query: prepared.text.clone(),
            name: job.query.display().to_string(),
            plan: format!("{:?}", prepared.plan),
            fallbacks: fallbacks::places(job, &prepared.bindings, &prepared.catalog),
        }),
        versions: versions.clone(),
    };
    let task = tokio::spawn(async move {
        tokio::select! {
            () = files.run(asked) => {}
            () = ended.cancelled() => {}
        }
    });
    (Looks(looks), task)
}

/// The files of the job's functions and who is in each.
fn files(job: &Job, prepared: &Prepared) -> Vec<WatchedFile> {
    let mut files: Vec<WatchedFile> = Vec::new();
    for (index, binding) in prepared.bindings.iter().enumerate() {
        let path = binding.component.path();
        let function = job.functions.iter().find(|function| function.name == binding.name);
        let export = function.and_then(|function| match &function.kind {
            FunctionSettings::Wasm(wasm) => wasm.export.clone(),
            FunctionSettings::Endpoint(_) => None,
        });
        let member = MemberFunction { index, export: export.unwrap_or_else(|| binding.name.clone()) };
        match files.iter_mut().find(|file| file.path == path) {
            Some(file) => file.members.push(member),
            None => {
                let watched = Some(Watched::new(path, FILE_BYTES_MAX));
                files.push(WatchedFile { path: path.to_owned(), watched, members: vec![member] });
            }
        }
    }
    files
}

#[derive(Debug)]
struct Files {
    files: Vec<WatchedFile>,
    check: Arc<Check>,
    versions: Versions,
}

#[derive(Debug)]
struct WatchedFile {
    path: PathBuf,
    /// `None` only while another thread looks
    watched: Option<Watched>,
    members: Vec<MemberFunction>,
}

#[derive(Clone, Debug)]
struct MemberFunction {
    /// the plan's
    index: usize,
    /// what the job file calls it inside the file
    export: String,
}

impl Files {
    async fn run(&mut self, mut asked: mpsc::Receiver<oneshot::Sender<LookOutcome>>) {
        loop {
            self.look(false).await;
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                Some(answer) = asked.recv() => {
                    // who asked may be gone
                    let _ = answer.send(self.look(true).await);
                }
            }
        }
    }

    async fn look(&mut self, now: bool) -> LookOutcome {
        let mut outcome = LookOutcome::Same;
        for file in &mut self.files {
            let mut watched = match file.watched.take() {
                Some(watched) if !now => watched,
                _ => Watched::new(&file.path, FILE_BYTES_MAX),
            };
            let (check, versions, members) = (self.check.clone(), self.versions.clone(), file.members.clone());
            // reading and compiling take their time, and no thread of the job waits for them
            let looking = tokio::task::spawn_blocking(move || {
                let outcome = check.file(watched.look(false), &versions, &members);
                (watched, outcome)
            });
            // one that panicked leaves the versions as they are, and the file is looked at afresh
            if let Ok((watched, found)) = looking.await {
                file.watched = Some(watched);
                outcome = outcome.max(found);
            }
        }
        outcome
    }
}

/// What a version is held against.
#[derive(Debug)]
struct Check {
    catalog: Catalog,
    query: Arc<str>,
    name: String,
    /// the running plan, written out: it has no other form in which plans can be compared
    plan: String,
    /// Functions that the query need not call: they answer in place of endpoints.
    fallbacks: Vec<usize>,
}

/// Why a version is not taken.
#[derive(Debug)]
struct VersionRefusal {
    reason: String,
    /// it would do after a start
    is_another_plan: bool,
}

impl From<String> for VersionRefusal {
    fn from(reason: String) -> VersionRefusal {
        VersionRefusal { reason, is_another_plan: false }
    }
}

impl From<UdfError> for VersionRefusal {
    fn from(error: UdfError) -> VersionRefusal {
        VersionRefusal::from(match error.help() {
            Some(help) => format!("{error}; {help}"),
            None => error.to_string(),
        })
    }
}

impl Check {
    fn file(&self, looked: Result<Looked, LookError>, versions: &Versions, members: &[MemberFunction]) -> LookOutcome {
        let bytes = match looked {
            Ok(Looked::Bytes(bytes)) => bytes,
            Ok(Looked::Same | Looked::Changing) => return LookOutcome::Same,
            Err(error) => {
                let why = match error {
                    LookError::Away(why) => why,
                    LookError::Bad(_) => {
                        format!("it has more than {FILE_BYTES_MAX} bytes; check that it is the right file")
                    }
                };
                members.iter().for_each(|member| versions.set_trouble(member.index, Some(why.clone())));
                return LookOutcome::Same;
            }
        };
        let digest: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        let present = versions.bindings();
        let present: Vec<(&MemberFunction, &FunctionBinding)> =
            members.iter().filter_map(|member| Some((member, present.get(member.index)?))).collect();
        if present.iter().all(|(_, binding)| binding.component.digest() == digest) {
            members.iter().for_each(|member| versions.set_trouble(member.index, None));
            return LookOutcome::Same;
        }
        match self.fits(&bytes, &present) {
            Ok(next) => {
                versions.swap(next);
                LookOutcome::Done
            }
            Err(VersionRefusal { reason, is_another_plan }) => {
                members.iter().for_each(|member| versions.refuse(member.index, &digest, &reason));
                if is_another_plan { LookOutcome::AnotherPlan } else { LookOutcome::Done }
            }
        }
    }

    /// The new versions of a file's functions, ready to be given out.
    fn fits(
        &self,
        bytes: &[u8],
        present: &[(&MemberFunction, &FunctionBinding)],
    ) -> Result<Vec<(usize, FunctionBinding)>, VersionRefusal> {
        let mut catalog = self.catalog.clone();
        let mut is_fallback = false;
        let mut changes = Vec::new();
        let mut next = Vec::new();
        for (member, now) in present {
            let renewed = now.renewed(bytes, &member.export)?;
            let lost = now.members_lost(&renewed);
            if !lost.is_empty() {
                let lost = lost.join("`, `");
                return Err(format!(
                    "`{}` has no `{lost}` any more, and what is kept of open windows counts on it",
                    now.name
                )
                .into());
            }
            let Some(signature) = renewed.signature().cloned() else { continue };
            let was = now.signature().map_or("", |signature| signature.text.as_str());
            if was != signature.text {
                changes.push(format!("`{}` was `{was}` and is `{}`", now.name, signature.text));
                is_fallback |= self.fallbacks.contains(&member.index);
            }
            if now.keeps_state() != renewed.keeps_state() {
                changes.push(format!(
                    "`{}` {} state",
                    now.name,
                    if renewed.keeps_state() { "now keeps" } else { "no longer keeps" }
                ));
            }
            let kind = match renewed.aggregate() {
                Some(offers) => {
                    // the running plan makes no use of what a version offers in addition
                    let offers = now.aggregate().map_or(offers, |had| Offers { time: offers.time, ..had });
                    catalog::FunctionKind::Aggregate { index: member.index, signature, offers }
                }
                None => {
                    catalog::FunctionKind::Local { index: member.index, signature, keeps_state: renewed.keeps_state() }
                }
            };
            if let Some(known) = catalog.functions.iter_mut().find(|known| known.name == now.name) {
                known.kind = kind;
            }
            next.push((member.index, renewed));
        }
        let changed = if changes.is_empty() { "its types changed".to_owned() } else { changes.join(", ") };
        let plan = crate::query::compile(&self.query, &self.name, &catalog).map_err(|problems| {
            let first = problems.items.iter().find(|item| !item.is_warning).map_or("", |item| item.title.as_str());
            format!("{changed}, which does not fit the query: {first}; `forebay check` shows where")
        })?;
        if format!("{plan:?}") != self.plan {
            let reason = format!("{changed}, which makes another plan of the query; SIGHUP or a restart takes it");
            return Err(VersionRefusal { reason, is_another_plan: true });
        }
        if is_fallback {
            let reason = format!("{changed}, and it is a fallback; SIGHUP or a restart looks whether it still fits");
            return Err(VersionRefusal { reason, is_another_plan: true });
        }
        // one that cannot start is found now
        for (_, binding) in &next {
            Host::new(std::slice::from_ref(binding))?;
        }
        Ok(next)
    }
}
