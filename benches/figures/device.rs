//! A block device for one measurement.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An ext4 of its own in a file, so that what reaches the block device can be told from what others write.
pub struct Device {
    pub folder: PathBuf,
    name: String,
}

impl Device {
    /// `None` without root, `mkfs.ext4` or a free loop device.
    pub fn mount(beside: &Path) -> Option<Device> {
        let (image, folder) = (beside.join("disk.img"), beside.join("disk"));
        fs::File::create(&image).ok()?.set_len(1 << 30).ok()?;
        fs::create_dir_all(&folder).ok()?;
        done("mkfs.ext4", &["-q", "-F", image.to_str()?])?;
        let device = done("losetup", &["--find", "--show", image.to_str()?])?;
        let name = device.trim().strip_prefix("/dev/")?.to_owned();
        let mounted = Device { folder, name };
        // what the file system does in the background is no part of an event
        done("mount", &["-o", "noatime,init_itable=0", device.trim(), mounted.folder.to_str()?])?;
        Some(mounted)
    }

    /// Bytes written since the machine started, after what waits has been written.
    pub fn written(&self) -> f64 {
        let _ = done("sync", &["-f", self.folder.to_str().unwrap_or("/")]);
        let text = fs::read_to_string(format!("/sys/block/{}/stat", self.name)).unwrap_or_default();
        text.split_whitespace().nth(6).and_then(|sectors| sectors.parse::<f64>().ok()).unwrap_or(0.0) * 512.0
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        done("umount", &[self.folder.to_str().unwrap_or_default()]);
        done("losetup", &["--detach", &format!("/dev/{}", self.name)]);
    }
}

/// What a program printed, if it succeeded.
fn done(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
