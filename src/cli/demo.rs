//! `forebay demo`: the taxi job with everything it needs in one process, and an outage in the middle.
//!
//! In: how long, how fast, and real peers where somebody has them. Out: what happens, line by line; at the end what the
//! fleet sent beside what a separate receiver saw, and the ledger. Invariant: the verdict rests on the fleet's and the
//! receiver's own counts, never on the job's. Not here: the peers themselves (`demo`), the job (`pipeline`).

mod peers;
mod screen;
mod show;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;

use reqwest::Url;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::say::complain;
use crate::demo::folder::Folder;
use peers::{BrokerAddress, Peers};
use screen::Screen;
use show::Show;

#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// How long the fleet publishes, seconds; the endpoint is away in the middle third
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(3..=1000))]
    seconds: u64,
    /// Rides that the fleet publishes each second
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rate: u64,
    /// The same seed gives the same rides
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The function that builds the model's input
    #[arg(long, value_name = "PATH", default_value = "udfs/target/components/create_array.wasm")]
    component: PathBuf,
    /// Write job file and pool here and leave them there, instead of into a temporary folder
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Go on after the result, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// A real broker instead of the embedded one, such as mqtt://127.0.0.1:1883; without login and TLS
    #[arg(long, value_name = "URL", value_parser = BrokerAddress::parse)]
    broker: Option<BrokerAddress>,
    /// A real endpoint instead of the embedded one, such as http://127.0.0.1:5001/score; no outage is played then
    #[arg(long, value_name = "URL")]
    endpoint: Option<Url>,
    /// Where the key of a real endpoint is found, such as env:AML_KEY
    #[arg(long, value_name = "REFERENCE", requires = "endpoint")]
    key: Option<String>,
}

/// Why there is no result: an exit code, and what to print.
type NoResult = (u8, String);

fn failure(error: impl std::fmt::Display) -> NoResult {
    (1, format!("error: {error}"))
}

/// Runs the demo: 0 when everything arrived and all equations hold, or when it was stopped; 2 for a mistake in the
/// arguments, 1 for anything else.
pub fn run(args: &DemoArgs) -> ExitCode {
    let done = check_component(args).and_then(|component| {
        let runtime = super::run::runtime().map_err(failure)?;
        runtime.block_on(play(args, component))
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err((code, text)) => {
            complain(format_args!("{text}\n"));
            ExitCode::from(code)
        }
    }
}

fn check_component(args: &DemoArgs) -> Result<PathBuf, NoResult> {
    args.component.canonicalize().map_err(|why| {
        let path = args.component.display();
        let problem = match why.kind() {
            std::io::ErrorKind::NotFound => format!("there is no component at {path}"),
            _ => format!("the component {path} cannot be read: {why}"),
        };
        (2, format!("error: {problem}: run `make udfs` or give --component PATH"))
    })
}

fn folder(args: &DemoArgs) -> Result<Folder, NoResult> {
    match &args.dir {
        None => Folder::temporary()
            .map_err(|why| failure(format!("no temporary folder can be made: {why}; choose one with --dir"))),
        Some(dir) => Folder::chosen(dir).map_err(|why| match why.kind() {
            std::io::ErrorKind::AlreadyExists => (2, format!("error: --dir: {why}")),
            _ => failure(format!("--dir {}: {why}", dir.display())),
        }),
    }
}

/// Cancelled by Ctrl-C and SIGTERM.
fn interruption() -> std::io::Result<CancellationToken> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let token = CancellationToken::new();
    let interrupted = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        interrupted.cancel();
    });
    Ok(token)
}

async fn play(args: &DemoArgs, component: PathBuf) -> Result<bool, NoResult> {
    let stop = interruption().map_err(failure)?;
    let mut screen = Screen::new();
    let mut folder = folder(args)?;
    let peers = Peers::start(args.broker.as_ref(), args.endpoint.as_ref()).await?;
    let path = peers.write_job(&folder, &component, args.key.as_deref()).map_err(failure)?;
    let job = tokio::task::block_in_place(|| super::run::load(&path)).map_err(|problems| (2, problems))?;
    screen.say(&intro(args, &peers, &folder));
    screen.say("");
    // dropping the show drops peers; the folder goes last
    let show = tokio::select! {
        show = Show::open(args, peers, &path, job, screen) => show?,
        () = stop.cancelled() => return Ok(true),
    };
    show.run(args, &stop, &mut folder).await
}

fn intro(args: &DemoArgs, peers: &Peers, folder: &Folder) -> String {
    let (third, two_thirds) = show::outage(args.seconds);
    let embedded = |is_embedded: bool| if is_embedded { "embedded" } else { "yours" };
    let away = match peers.endpoint {
        Some(_) => format!(
            "\n             away from second {} to {}",
            third.as_secs_f32().round(),
            two_thirds.as_secs_f32().round()
        ),
        None => String::new(),
    };
    let goes = if folder.is_temporary() && !args.keep { "\n             (removed at the end)" } else { "" };
    format!(
        "forebay demo: a streaming job and everything around it, in one process\n\n  \
           fleet      40 taxis, {rate} finished rides a second over MQTT for {seconds} s\n  \
           broker     {broker}, {broker_is}\n  \
           job        stores each ride in its pool; a WebAssembly function makes the\n             \
                      model's input of it; the fare joins it and goes to {root}/scored\n  \
           endpoint   {endpoint}, {endpoint_is}{away}\n  \
           receiver   a client of its own that counts the rides on {root}/scored\n  \
           pool       {pool}{goes}\n\n\
         what the columns show\n  \
           received   rides in the pool, from then on acknowledged to the broker\n  \
           scored     rides the endpoint has answered\n  \
           delivered  rows the receiver got\n  \
           in pool    rows that wait for their score, or scored, for the broker\n\n",
        rate = args.rate,
        seconds = args.seconds,
        broker = peers.broker_url,
        broker_is = embedded(peers.broker.is_some()),
        root = peers.root,
        endpoint = peers.endpoint_url,
        endpoint_is = embedded(peers.endpoint.is_some()),
        pool = folder.path().join("taxi.db").display(),
    )
}
