//! The folder of a demo: its job file, its query, its pool.
//!
//! In: the addresses of broker and endpoint, a component. Out: a job file as a person would write it. Invariant: a
//! folder that the demo made is removed with everything in it unless it is kept; one that was given never is, and
//! nothing in it is overwritten. Not here: reading the job file.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The query of the taxi example.
pub const QUERY: &str = include_str!("../../examples/taxi/taxi.asaql");

/// A folder, removed when it is dropped if the demo made it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    is_temporary: bool,
}

/// What the job file says beside what every demo has in common.
#[derive(Debug)]
pub struct Setup<'a> {
    /// `mqtt://host:port`
    pub broker: &'a str,
    /// First level of the topics: rides come in on `ROOT/+/rides`, scored ones go out on `ROOT/scored`.
    pub root: &'a str,
    pub component: &'a Path,
    /// The scoring address.
    pub endpoint: &'a str,
    /// A reference such as `env:AML_KEY`.
    pub key: Option<&'a str>,
}

impl Folder {
    /// A new folder of our own among the temporary ones, closed to others.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn temporary() -> io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("forebay-demo-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Folder { path, is_temporary: true })
    }

    /// A folder that somebody chose; made when it is not there.
    ///
    /// # Errors
    /// When it cannot be made, or `AlreadyExists` when it holds anything with the name of one of our files.
    pub fn chosen(path: &Path) -> io::Result<Folder> {
        fs::create_dir_all(path)?;
        let path = path.canonicalize()?;
        if let Some(name) = ["job.toml", "taxi.asaql", "taxi.db"].iter().find(|name| path.join(name).exists()) {
            let why = format!("{} holds a {name} already; give an empty or a new folder", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        Ok(Folder { path, is_temporary: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it goes when it is dropped.
    pub fn is_temporary(&self) -> bool {
        self.is_temporary
    }

    /// Leaves it there.
    pub fn keep(&mut self) {
        self.is_temporary = false;
    }

    /// Writes query and job file; answers the job file's path.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_job(&self, setup: &Setup) -> io::Result<PathBuf> {
        fs::write(self.path.join("taxi.asaql"), QUERY)?;
        let path = self.path.join("job.toml");
        fs::write(&path, job_text(setup))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_temporary {
            // what cannot be removed stays for the system's own cleaning
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn job_text(setup: &Setup) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let (broker, root) = (quoted(setup.broker), setup.root);
    let key = setup.key.map(|key| format!("key = {}\n", quoted(key))).unwrap_or_default();
    format!(
        "# The taxi job, as `forebay demo` runs it.\n\
         [job]\nname = \"taxi\"\nquery = \"taxi.asaql\"\n\n\
         [journal]\npath = \"taxi.db\"\n\n\
         [metrics]\nlisten = \"127.0.0.1:0\"        # any free port\n\n\
         [inputs.rides]\ntype = \"mqtt\"\nurl = {broker}\ntopics = [{topics}]\n\n\
         [functions.createArray]\ntype = \"wasm\"\ncomponent = {component}\n\n\
         [functions.score]\ntype = \"azureml\"\nurl = {endpoint}\n{key}\n\
         [outputs.scored]\ntype = \"mqtt\"\nurl = {broker}\ntopic = {topic}\n",
        topics = quoted(&format!("{root}/+/rides")),
        component = quoted(&setup.component.display().to_string()),
        endpoint = quoted(setup.endpoint),
        topic = quoted(&format!("{root}/scored")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_file_is_one_that_the_job_reader_takes() {
        let mut folder = Folder::temporary().unwrap();
        let component = folder.path().join("a \"quoted\" name.wasm");
        fs::write(&component, "").unwrap();
        let (broker, endpoint) = ("mqtt://127.0.0.1:1883", "https://fares.example.org/score");
        let setup = Setup { broker, root: "taxi", component: &component, endpoint, key: Some("env:AML_KEY") };
        let path = folder.write_job(&setup).unwrap();
        let job = crate::job::parse(&fs::read_to_string(&path).unwrap(), &path).unwrap();
        assert_eq!(job.journal.config.path, folder.path().join("taxi.db"));
        let again = Folder::chosen(folder.path()).unwrap_err().to_string();
        assert!(again.contains("holds a job.toml already"), "{again}");
        let at = folder.path().to_owned();
        folder.keep();
        drop(folder);
        assert!(at.exists());
        fs::remove_dir_all(at).unwrap();
    }

    #[test]
    fn a_temporary_folder_goes_with_what_it_holds() {
        let folder = Folder::temporary().unwrap();
        let at = folder.path().to_owned();
        fs::write(at.join("x"), "x").unwrap();
        drop(folder);
        assert!(!at.exists());
    }
}
