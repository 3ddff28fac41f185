//! The stages at both ends, made from the job's sections.
//!
//! In: the job. Out: running sources with their intake threads, output tasks, scorers. Invariant: a client id or a swagger
//! document that was made or seen once is kept in the journal. Not here: statements (`statement`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use smol_str::SmolStr;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::PipelineError;
use super::health::Health;
use super::intake::Intake;
use super::outputs::OutputHandle;
use super::report::Watched;
use crate::job::{self, AzureMlFunction, Broker, FunctionKind, InputKind, Job, MqttInput, OutputKind, Qos};
use crate::journal::{Journal, JournalError};
use crate::output::{FileOutputConfig, MqttOutputConfig, Output};
use crate::reference::Reference;
use crate::score::{ScoreConfig, Scorer, Signature, WrittenSignature};
use crate::source::{BrokerConfig, MqttSource, MqttSourceConfig, RecentRecord};
use crate::time::Clock;

/// Records kept to recognise a redelivery, in receive windows.
const RECENT_WINDOWS: usize = 2;

/// How many of the newest records the journal keeps at hand.
pub fn recent_records(job: &Job) -> usize {
    let windows = job.inputs.iter().map(|i| match &i.kind {
        InputKind::Mqtt(mqtt) => usize::from(mqtt.receive_maximum),
        InputKind::File(_) | InputKind::Reference(_) => 0,
    });
    windows.max().unwrap_or(0) * RECENT_WINDOWS
}

type Intakes = Vec<JoinHandle<Result<(), JournalError>>>;

/// Connects the inputs. Last of all, so that everything behind them runs already.
pub fn sources(
    job: &Job,
    journal: &Journal,
    clock: &Clock,
    watched: &Watched,
    health: &Arc<Health>,
) -> Result<(Vec<MqttSource>, Intakes), PipelineError> {
    let (mut sources, mut intakes) = (Vec::new(), Vec::new());
    for input in &job.inputs {
        let name = SmolStr::new(&input.name);
        let mqtt = match &input.kind {
            InputKind::Mqtt(mqtt) => mqtt,
            InputKind::Reference(_) => continue,
            InputKind::File(_) => {
                return Err(PipelineError::Input { name, reason: "only mqtt inputs run; use `forebay eval` for files".to_owned() });
            }
        };
        let id = journal.input(&input.name)?;
        let (client_id, known) = client_id(journal, &mqtt.broker, &format!("forebay-{}-{}", job.name, input.name))?;
        let problem = |reason: String| PipelineError::Input { name: name.clone(), reason };
        let config = source_config(mqtt, broker(&mqtt.broker, client_id).map_err(problem)?, known);
        let stored = journal.recent_messages(id, usize::from(mqtt.receive_maximum) * RECENT_WINDOWS)?;
        let recent = stored.iter().map(|m| RecentRecord { packet_id: m.packet_id, topic: &m.message.topic, payload: &m.payload });
        let (source, arrivals) = MqttSource::start(config, recent, clock.clone()).map_err(|e| problem(e.to_string()))?;
        watched.add_source(name.clone(), source.stats().clone());
        let intake =
            Intake { name: name.clone(), input: id, journal: journal.clone(), stats: source.stats().clone(), health: health.clone() };
        intakes.push(intake.spawn(arrivals).map_err(|source| PipelineError::System { what: "the intake thread", source })?);
        sources.push(source);
    }
    Ok((sources, intakes))
}

fn source_config(mqtt: &MqttInput, broker: BrokerConfig, session_expected: bool) -> MqttSourceConfig {
    MqttSourceConfig {
        qos: qos(mqtt.qos),
        payload_bytes_max: u32::try_from(mqtt.payload_bytes_max).unwrap_or(u32::MAX),
        receive_maximum: mqtt.receive_maximum,
        unacked_bytes_max: mqtt.unacked_bytes_max,
        // MQTT's own word for "for ever" is the largest number of seconds
        session_expiry: mqtt.session_expiry.unwrap_or(Duration::from_secs(u64::from(u32::MAX))),
        session_expected,
        ..MqttSourceConfig::new(broker, mqtt.topics.clone())
    }
}

fn qos(qos: Qos) -> u8 {
    match qos {
        Qos::AtMostOnce => 0,
        Qos::AtLeastOnce => 1,
    }
}

/// The id of the job file, else one that is made once; and whether the broker may know it already.
fn client_id(journal: &Journal, broker: &Broker, stem: &str) -> Result<(String, bool), JournalError> {
    let id = match &broker.client_id {
        Some(id) => id.clone(),
        None => format!("{stem}-{}", journal.client_id_suffix()?),
    };
    let key = format!("client/{id}");
    let known = journal.get_meta(&key)?.is_some();
    if !known {
        journal.put_meta(&key, b"used")?;
    }
    Ok((id, known))
}

fn broker(broker: &Broker, client_id: String) -> Result<BrokerConfig, String> {
    let scheme = if broker.address.tls { "mqtts" } else { "mqtt" };
    let host = &broker.address.host;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let password = broker.password.as_ref().map(|p| p.read().map_err(|e| format!("password: {e}; {}", e.help()))).transpose()?;
    Ok(BrokerConfig {
        username: broker.username.clone(),
        password,
        ca_file: broker.ca_file.clone(),
        keep_alive: broker.keep_alive,
        ..BrokerConfig::new(format!("{scheme}://{host}:{}", broker.address.port), client_id)
    })
}

/// The tables that streams are joined with, and the tasks that load them.
pub type References = (Vec<Reference>, Vec<tokio::task::JoinHandle<()>>);

/// Starts to load the reference data.
pub fn references(
    job: &Job,
    journal: &Journal,
    clock: &Clock,
    watched: &Watched,
    ended: &CancellationToken,
) -> Result<References, PipelineError> {
    let names: Vec<SmolStr> = job.references().map(|(input, _)| SmolStr::new(&input.name)).collect();
    journal.keep_only_references(&names)?;
    let mut made = (Vec::new(), Vec::new());
    for (input, settings) in job.references() {
        let started = Reference::start(&input.name, settings, journal.clone(), clock.clone(), ended.clone());
        let (reference, task) = started.map_err(|reason| PipelineError::Input { name: SmolStr::new(&input.name), reason })?;
        watched.add_reference(reference.clone());
        made.0.push(reference);
        made.1.push(task);
    }
    Ok(made)
}

type Outputs = Vec<(OutputHandle, tokio::task::JoinHandle<()>)>;

/// Gives each output its task. They connect with the first row.
pub fn outputs(
    job: &Job,
    journal: &Journal,
    clock: &Clock,
    watched: &Watched,
    hurry: &CancellationToken,
) -> Result<Outputs, PipelineError> {
    let mut made = Vec::new();
    for output in &job.outputs {
        let name = SmolStr::new(&output.name);
        let problem = |reason: String| PipelineError::Output { name: name.clone(), reason };
        let row_id = output.row_id.as_ref().map(SmolStr::new);
        let end = match &output.kind {
            OutputKind::Mqtt(mqtt) => {
                let (id, _) = client_id(journal, &mqtt.broker, &format!("forebay-{}-out-{}", job.name, output.name))?;
                let config = MqttOutputConfig {
                    qos: qos(mqtt.qos),
                    retain: mqtt.retain,
                    row_id,
                    ..MqttOutputConfig::new(broker(&mqtt.broker, id).map_err(problem)?, &mqtt.topic)
                };
                Output::mqtt(config).map_err(|e| problem(e.to_string()))?
            }
            OutputKind::File(file) => {
                let fsync = match file.fsync {
                    job::Fsync::Always => crate::output::Fsync::Always,
                    job::Fsync::Interval(every) => crate::output::Fsync::Interval(every),
                    job::Fsync::Never => crate::output::Fsync::Never,
                };
                let config = FileOutputConfig {
                    rotate_bytes: file.rotate_bytes,
                    rotate_interval: file.rotate_interval,
                    keep_files: file.keep_files.map(|n| n as usize),
                    fsync,
                    row_id,
                    ..FileOutputConfig::new(&file.path)
                };
                Output::file(config, clock.clone())
            }
            OutputKind::Stdout => Output::stdout(row_id),
        };
        let (handle, task) = OutputHandle::spawn(name, end, journal.incarnation_hex(), hurry.clone());
        watched.add_output(handle.clone());
        made.push((handle, task));
    }
    Ok(made)
}

/// Starts a scorer for each endpoint.
pub fn scorers(job: &Job, journal: &Journal, watched: &Watched) -> Result<BTreeMap<SmolStr, Scorer>, PipelineError> {
    let mut scorers = BTreeMap::new();
    for function in &job.functions {
        let FunctionKind::AzureMl(endpoint) = &function.kind else { continue };
        let name = SmolStr::new(&function.name);
        let problem = |reason: String| PipelineError::Function { name: name.clone(), reason };
        let key = format!("swagger/{}/{}", function.name, endpoint.url);
        let cached = journal.get_meta(&key)?.and_then(|text| String::from_utf8(text).ok());
        let config = ScoreConfig { cached_swagger: cached, ..score_config(&function.name, endpoint).map_err(problem)? };
        let scorer = Scorer::start(config, &Handle::current()).map_err(|e| problem(e.to_string()))?;
        keep_swagger(&scorer, journal.clone(), key);
        watched.add_scorer(scorer.clone());
        scorers.insert(name, scorer);
    }
    Ok(scorers)
}

/// Keeps each new document, so that the next start works offline.
fn keep_swagger(scorer: &Scorer, journal: Journal, key: String) {
    let mut updates = scorer.swagger_updates();
    tokio::spawn(async move {
        while updates.changed().await.is_ok() {
            let Some(text) = updates.borrow_and_update().clone() else { continue };
            let (journal, key) = (journal.clone(), key.clone());
            let kept = tokio::task::spawn_blocking(move || journal.put_meta(&key, text.as_bytes())).await;
            if let Ok(Err(error)) = kept {
                tracing::warn!("the endpoint's signature is not kept for an offline start: {error}");
            }
        }
    });
}

/// The scorer's settings as the job file gives them.
///
/// # Errors
/// When a signature that was written by hand does not hold together.
pub fn score_config(name: &str, endpoint: &AzureMlFunction) -> Result<ScoreConfig, String> {
    let key = endpoint
        .key
        .clone()
        .map(|secret| -> crate::score::KeySource { Arc::new(move || secret.read().map_err(|e| format!("{e}; {}", e.help()))) });
    let signature = endpoint.signature.as_ref().map(signature).transpose()?;
    Ok(ScoreConfig {
        swagger_url: endpoint.swagger_url.as_ref().map(ToString::to_string),
        key,
        max_batch_count: endpoint.max_batch_count,
        max_batch_bytes: endpoint.max_batch_bytes,
        parallel_requests: u32::try_from(endpoint.parallel_requests).unwrap_or(u32::MAX),
        linger: endpoint.linger,
        request_timeout: endpoint.request_timeout,
        mode: match endpoint.mode {
            job::Mode::Edge => crate::score::Mode::Edge,
            job::Mode::Asa => crate::score::Mode::Asa,
        },
        nan: match endpoint.nan {
            job::OnNan::Null => crate::score::NanPolicy::Null,
            job::OnNan::DeadLetter => crate::score::NanPolicy::DeadLetter,
        },
        ca_file: endpoint.ca_file.clone(),
        constants: endpoint.constants.clone(),
        deployment: endpoint.deployment.clone(),
        signature,
        ..ScoreConfig::new(name, endpoint.url.as_str())
    })
}

fn signature(written: &job::ManualSignature) -> Result<Signature, String> {
    let mut signature = Signature::from_written(&written_signature(written)).map_err(|e| e.to_string())?;
    // a name may hold the point that joins names in the short form
    signature.input.path.clone_from(&written.input_path);
    if let Some(path) = &written.output_path {
        signature.output.path.clone_from(path);
    }
    Ok(signature)
}

fn written_signature(written: &job::ManualSignature) -> WrittenSignature {
    let layout = match written.input {
        job::InputShape::Array => "array",
        job::InputShape::Records => "records",
        job::InputShape::Vector => "vector",
        job::InputShape::Split => "split",
    };
    let columns = written.columns.iter().map(|(name, ty)| format!("{name} {}", ty.map_or("any".to_owned(), |t| t.to_string())));
    WrittenSignature {
        rows: Some(written.input_path.join(".")),
        layout: Some(layout.to_owned()),
        columns: columns.collect(),
        results: written.output_path.as_ref().map(|path| path.join(".")),
    }
}
