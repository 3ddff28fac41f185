//! The section of an MQTT output.
//!
//! In: `[outputs.NAME]` with `type = "mqtt"`. Out: [`MqttOutputConfig`], checked. Invariant: what the topic has beside
//! columns has no wildcards. Not here: running.

use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use super::{MqttOutput, TopicTemplate};
use crate::diagnostic::{Diagnostic, Span};
use crate::mqtt::{BrokerConfig, Protocol, Qos};
use crate::output::body::{Batch, Body};
use crate::output::{Fill, Output, OutputSettings, Site, row_id};
use crate::settings::{Secret, Section, Text};

/// An MQTT output, as the job describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct MqttOutputConfig {
    /// Its client id must differ from that of every input.
    pub broker: BrokerConfig,
    pub topic: TopicTemplate,
    /// With [`Qos::AtMostOnce`] a row counts as delivered once it was written to the network.
    pub qos: Qos,
    pub retain: bool,
    /// How rows are written into messages.
    pub body: Body,
    /// Larger rows are rejected; the broker's own limit holds besides.
    pub batch: Batch,
    /// Column that carries the row id, beside the user property.
    pub row_id: Option<SmolStr>,
    /// A broker that is alive confirms sooner; later the connection is given up and the row sent again.
    pub puback_timeout: Duration,
}

impl MqttOutputConfig {
    /// What messages with several rows hold; those with one row have the same limit of bytes.
    pub const BATCH: Batch = Batch { rows: 100, bytes: 1 << 20, time: Duration::ZERO };
    pub const PUBACK_TIMEOUT: Duration = Duration::from_secs(30);

    /// With the defaults: QoS 1, not retained, one row a message of at most 1 MiB.
    pub fn new(broker: BrokerConfig, topic: TopicTemplate) -> MqttOutputConfig {
        MqttOutputConfig {
            broker,
            topic,
            qos: Qos::AtLeastOnce,
            retain: false,
            body: Body::Row,
            batch: Batch { rows: 1, ..Self::BATCH },
            row_id: None,
            puback_timeout: Self::PUBACK_TIMEOUT,
        }
    }

    /// Reads and checks the section.
    pub fn read(section: &mut Section) -> Option<MqttOutputConfig> {
        let broker = BrokerConfig::read(section);
        let topic = section.required_text("topic", "write `topic = \"taxi/scored\"`");
        let topic = topic.and_then(|text| template(section, &text));
        let qos = Qos::read(section);
        let retain = section.boolean("retain", false);
        let body = Body::read(section, Body::Row);
        let batch = Batch::read(section, body, Self::BATCH, "message");
        let row_id = row_id(section);
        if row_id.is_none() && broker.as_ref().is_some_and(|broker| broker.protocol == Some(Protocol::V311)) {
            let warning = Diagnostic::warning("rows leave without their ids", section.key_span("protocol"));
            let label = "MQTT 3.1.1 has no user properties";
            section.problems().push(
                warning.label(label).help("write `row_id = \"id\"` for a column, so that a receiver can drop repeats"),
            );
        }
        Some(MqttOutputConfig { qos, retain, body, batch, row_id, ..MqttOutputConfig::new(broker?, topic?) })
    }
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
    fn secrets(&self) -> Vec<&Secret> {
        self.broker.secrets()
    }

    fn exclusive(&self) -> Option<String> {
        self.broker.the_client()
    }

    fn fill(&self) -> Fill {
        self.batch.fill()
    }

    fn columns(&self) -> Vec<(&SmolStr, Span)> {
        self.topic.columns().collect()
    }

    fn build(&self, site: Site<'_>) -> Result<Box<dyn Output>, String> {
        let client_id = (site.identify)(self.broker.client_id.as_deref())?;
        Ok(Box::new(MqttOutput::new(self.clone(), client_id, site.stats)))
    }
}
