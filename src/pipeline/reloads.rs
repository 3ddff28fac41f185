//! What a running job would not take over: a job file, new functions, newer reference data, a renewed certificate.
//!
//! In: each of them as it is now. Out: lines for `/readyz`, samples for `/metrics`. Invariant: a refusal is told from
//! when it is noticed until a good one is taken. Not here: taking them over.

use crate::job::{FunctionSettings, InputSettings, Job};
use crate::reference::{Reference, ReferencePlace};
use crate::telemetry::{Sample, SampleKind};
use crate::tls::TlsFiles;
use crate::udf::Versions;

/// Something that may be renewed while the job runs.
#[derive(Debug)]
pub struct Renewal {
    /// `job`, `function rules`, `input zones`, `certificate of output alerts`.
    what: String,
    /// Why the newest one is not in use.
    refused: Option<String>,
}

/// The files of TLS that are read anew while the job runs, and whose they are.
pub fn certificates(job: &Job) -> Vec<(String, TlsFiles)> {
    let functions = job.functions.iter().filter_map(|function| match &function.kind {
        FunctionSettings::Endpoint(endpoint) => Some((format!("function {}", function.name), &endpoint.tls)),
        _ => None,
    });
    let inputs = job.inputs.iter().filter_map(|input| match &input.kind {
        InputSettings::Reference(reference) => match &reference.place {
            ReferencePlace::Http(address) => Some((format!("input {}", input.name), &address.tls)),
            ReferencePlace::File(_) => None,
        },
        _ => None,
    });
    let outputs =
        job.outputs.iter().filter_map(|output| Some((format!("output {}", output.name), output.settings.tls()?)));
    let all = functions.chain(inputs).chain(outputs).filter(|(_, tls)| tls.client.is_some());
    all.map(|(of, tls)| (of, tls.clone())).collect()
}

/// All that may be renewed. `noted`: why the job file is not in use.
pub fn all(
    noted: Option<String>,
    versions: &Versions,
    references: &[Reference],
    certificates: &[(String, TlsFiles)],
) -> Vec<Renewal> {
    let mut found = vec![Renewal { what: "job".to_owned(), refused: noted }];
    found.extend(versions.statuses().into_iter().map(|(name, status)| {
        let what = format!("function {name}");
        Renewal { refused: status.trouble.map(|why| format!("{what}: {why}")), what }
    }));
    found.extend(references.iter().filter_map(|reference| {
        let (what, status) = (format!("input {}", reference.name()), reference.status());
        let loaded_at = status.version?.loaded_at;
        let refused = status.trouble.map(|why| format!("{what}: the version loaded {loaded_at} stays in use: {why}"));
        Some(Renewal { what, refused })
    }));
    found.extend(certificates.iter().map(|(of, tls)| Renewal {
        what: format!("certificate of {of}"),
        refused: tls.told.refused().map(|why| format!("{of}: {why}")),
    }));
    found
}

/// Those that were refused.
pub fn degraded(reloads: Vec<Renewal>) -> impl Iterator<Item = String> {
    reloads.into_iter().filter_map(|reload| reload.refused)
}

/// Whether each was refused.
pub fn samples(reloads: &[Renewal], job: &str, samples: &mut Vec<Sample>) {
    samples.extend(reloads.iter().map(|Renewal { what, refused }| Sample {
        name: "reload_refused",
        help: "1 while the newest version of something is refused and the former one stays in use",
        kind: SampleKind::Gauge,
        labels: vec![("job", job.to_owned()), ("what", what.clone())],
        value: f64::from(u8::from(refused.is_some())),
    }));
}
