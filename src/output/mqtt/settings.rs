//! The section of an MQTT output.
//!
//! In: `[outputs.NAME]` with `type = "mqtt"`. Out: [`MqttOutputConfig`], checked. Invariant: the fixed text of a topic
//! has no wildcards. Not here: running.

use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use super::session::Way;
use super::{MqttOutput, TopicTemplate};
use crate::diagnostic::{Diagnostic, Span, suggest};
use crate::mqtt::{BrokerConfig, Protocol, Qos, Shared, StatusTopic};
use crate::output::body::{BatchPolicy, Body};
use crate::output::{Fill, Output, OutputSettings, Site, ToldColumns};
use crate::settings::{Problems, Secret, Section, Text};
use crate::source::Neighbour;

/// An MQTT output, as the job describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct MqttOutputConfig {
    pub connection: Connection,
    pub topic: TopicTemplate,
    /// With [`Qos::AtMostOnce`] a row counts as delivered once it was written to the network.
    pub qos: Qos,
    pub retain: bool,
    /// How rows are written into messages.
    pub body: Body,
    /// Larger rows are rejected; the broker's own limit holds besides.
    pub batch: BatchPolicy,
    /// Columns beside the user properties.
    pub told: ToldColumns,
    /// A broker that is alive confirms sooner; later the connection is given up and the row sent again.
    pub puback_timeout: Duration,
}

/// By which connection rows leave.
#[derive(Clone, Debug, PartialEq)]
pub enum Connection {
    /// One of its own; the client id must differ from that of every input.
    Own(Box<BrokerConfig>),
    /// That of an MQTT input of the job.
    Input {
        name: String,
        /// Its place in the job file.
        span: Span,
    },
}

impl MqttOutputConfig {
    /// What messages with several rows hold; those with one row have the same limit of bytes.
    pub const BATCH: BatchPolicy = BatchPolicy { rows: 100, bytes: 1 << 20, time: Duration::ZERO };
    pub const PUBACK_TIMEOUT: Duration = Duration::from_secs(30);

    /// With the defaults: QoS 1, not retained, one row a message of at most 1 MiB.
    pub fn new(broker: BrokerConfig, topic: TopicTemplate) -> MqttOutputConfig {
        MqttOutputConfig::over(Connection::Own(Box::new(broker)), topic)
    }

    fn over(connection: Connection, topic: TopicTemplate) -> MqttOutputConfig {
        MqttOutputConfig {
            connection,
            topic,
            qos: Qos::AtLeastOnce,
            retain: false,
            body: Body::Row,
            batch: BatchPolicy { rows: 1, ..Self::BATCH },
            told: ToldColumns::default(),
            puback_timeout: Self::PUBACK_TIMEOUT,
        }
    }

    /// Reads and checks the section. Whether the input of `connection` is there is told by what it is checked beside.
    pub fn read(section: &mut Section) -> Option<MqttOutputConfig> {
        let connection = connection(section);
        let topic = section.required_text("topic", "write `topic = \"taxi/scored\"`");
        let topic = topic.and_then(|text| template(section, &text));
        let qos = Qos::read(section);
        let retain = section.boolean("retain", false);
        let body = Body::read(section, Body::Row);
        let batch = BatchPolicy::read(section, body, Self::BATCH, "message");
        let told = ToldColumns::read(section);
        if let Some(Connection::Own(broker)) = &connection
            && told.row_id.is_none()
        {
            section.problems().extend(without_ids(broker, section.key_span("protocol")));
        }
        Some(MqttOutputConfig { qos, retain, body, batch, told, ..MqttOutputConfig::over(connection?, topic?) })
    }
}

/// Reads `connection`, or the keys of a connection of its own.
fn connection(section: &mut Section) -> Option<Connection> {
    let Some(Text { value: name, span }) = section.text("connection") else {
        if section.has("connection") {
            // wrong as it is written: which other keys belong here is left open
            section.leave_unknown();
            return None;
        }
        return BrokerConfig::read(section).map(|broker| Connection::Own(Box::new(broker)));
    };
    // a password is hidden in messages even where it has no place
    section.secret("password");
    for key in BrokerConfig::KEYS {
        if section.get(key).is_some() {
            section.wrong(
                key,
                format!("`{key}` beside `connection`"),
                format!("the connection is that of input `{name}`"),
                format!("leave `{key}` out here; it belongs to `[inputs.{name}]`"),
            );
        }
    }
    Some(Connection::Input { name, span })
}

/// In MQTT 3.1.1 rows have no user property.
fn without_ids(broker: &BrokerConfig, span: Option<Span>) -> Option<Diagnostic> {
    let warning = Diagnostic::warning("rows leave without their ids", span).label("MQTT 3.1.1 has no user properties");
    (broker.protocol == Some(Protocol::V311))
        .then(|| warning.help("write `row_id = \"id\"` for a column, so that a receiver can drop repeats"))
}

/// Reads `topic`.
fn template(section: &Section, text: &Text) -> Option<TopicTemplate> {
    let problem = match TopicTemplate::parse(text) {
        Ok(template) => return Some(template),
        Err(problem) => problem,
    };
    let error = Diagnostic::error(format!("`{}` is no topic here", text.value.escape_debug()), problem.span)
        .label(problem.label);
    section.problems().push(match problem.help {
        Some(help) => error.help(help),
        None => error,
    });
    None
}

/// Reads the section for the table of outputs.
pub(in crate::output) fn read(section: &mut Section) -> Option<Arc<dyn OutputSettings>> {
    MqttOutputConfig::read(section).map(|config| Arc::new(config) as Arc<dyn OutputSettings>)
}

impl OutputSettings for MqttOutputConfig {
    fn told(&self) -> &ToldColumns {
        &self.told
    }

    fn secrets(&self) -> Vec<&Secret> {
        match &self.connection {
            Connection::Own(broker) => broker.secrets(),
            Connection::Input { .. } => Vec::new(),
        }
    }

    fn exclusive(&self) -> Vec<String> {
        match &self.connection {
            Connection::Own(broker) => broker.exclusive(),
            Connection::Input { .. } => Vec::new(),
        }
    }

    fn attempt_max(&self) -> Duration {
        // others that share the connection may go first
        4 * self.puback_timeout
    }

    fn is_shared(&self) -> bool {
        matches!(self.connection, Connection::Input { .. })
    }

    fn check_beside(&self, inputs: &[Neighbour<'_>], problems: &Problems) {
        let broker = match &self.connection {
            Connection::Own(broker) => {
                let inputs = inputs.iter().filter_map(|input| Some((input.name, shared(input)?)));
                StatusTopic::check(broker, inputs, problems);
                broker
            }
            Connection::Input { name, span } => match lender(name, inputs) {
                Ok(input) => {
                    if self.told.row_id.is_none() {
                        problems.extend(without_ids(&input.broker, Some(*span)));
                    }
                    &input.broker
                }
                Err((label, help)) => {
                    let error = Diagnostic::error(format!("`{name}` has no connection to send over"), *span);
                    problems.push(error.label(label).help(help));
                    return;
                }
            },
        };
        let filter = self.topic.filter();
        for input in inputs {
            let shared = shared(input).filter(|shared| shared.broker.address == broker.address);
            if let Some(own) = shared.and_then(|shared| shared.receives(&filter)) {
                let title = format!("rows come back as events of input `{}`", input.name);
                let warning = Diagnostic::warning(title, self.topic.span());
                let label = format!("its filter `{own}` takes in topics of this output");
                problems.push(warning.label(label).help("write to topics that no filter of the job takes in"));
            }
        }
    }

    fn fill(&self) -> Fill {
        self.batch.fill()
    }

    fn columns(&self) -> Vec<(&SmolStr, Span)> {
        self.topic.columns().collect()
    }

    fn build(&self, site: Site<'_>) -> Result<Box<dyn Output>, String> {
        let way = match &self.connection {
            Connection::Own(broker) => {
                let client_id = (site.identify)(broker.client_id.as_deref())?;
                Way::own((**broker).clone(), client_id, site.job)
            }
            Connection::Input { name, .. } => Way::of_input(name, site.connections.get(name)),
        };
        Ok(Box::new(MqttOutput::new(self.clone(), way, site.stats)))
    }
}

/// What an MQTT input tells of itself.
fn shared<'a>(input: &'a Neighbour<'_>) -> Option<&'a Shared> {
    input.offer.as_ref()?.downcast_ref()
}

/// The MQTT input of this name; else what is wrong and what to do.
fn lender<'a>(name: &str, inputs: &'a [Neighbour<'_>]) -> Result<&'a Shared, (String, String)> {
    let lenders = || inputs.iter().filter(|input| shared(input).is_some()).map(|input| input.name);
    let names: Vec<String> = lenders().map(|name| format!("`{name}`")).collect();
    let write = match names.as_slice() {
        [] => "leave `connection` out and write `url`".to_owned(),
        names => format!("expected an MQTT input: {}", names.join(", ")),
    };
    match inputs.iter().find(|input| input.name == name) {
        Some(input) => shared(input).ok_or(("this input is not an MQTT stream".to_owned(), write)),
        None => {
            let help = suggest(name, lenders()).map_or(write, |meant| format!("did you mean `{meant}`?"));
            Err(("the job has no input of this name".to_owned(), help))
        }
    }
}
