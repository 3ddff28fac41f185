//! `[metrics]`: the address of metrics and health.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::settings::Section;

/// Long beside every time limit of a delivery or a call.
const STALLED_AFTER: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    pub enabled: bool,
    /// Default 127.0.0.1:9464. Beyond loopback only with `allow_remote`: what it tells is not protected.
    pub listen: SocketAddr,
    /// A consumer that could go on and has not moved for so long makes `/healthz` say no; `None`: it never does.
    pub stalled_after: Option<Duration>,
}

pub(super) fn read(section: Option<Section>) -> Metrics {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 9464));
    let mut metrics = Metrics { enabled: true, listen, stalled_after: Some(STALLED_AFTER) };
    let Some(mut section) = section else { return metrics };
    metrics.enabled = section.boolean("enabled", metrics.enabled);
    let (least, most) = (Duration::from_secs(10), Duration::from_secs(86_400));
    metrics.stalled_after = section.duration_or_forever("stalled_after", least, most, metrics.stalled_after);
    let allow_remote = section.boolean("allow_remote", false);
    if let Some(text) = section.text("listen") {
        match text.value.parse::<SocketAddr>() {
            Ok(listen) if listen.ip().is_loopback() || allow_remote => metrics.listen = listen,
            Ok(_) if section.is_wrong("allow_remote") => {}
            Ok(_) => section.wrong(
                "listen",
                "metrics would be open to the network",
                "expected a loopback address",
                "metrics have no login; write `allow_remote = true` if that is meant",
            ),
            Err(_) => section.wrong(
                "listen",
                "`listen` has the wrong form",
                "expected an address and a port",
                "write `listen = \"127.0.0.1:9464\"`",
            ),
        }
    }
    section.finish();
    metrics
}
