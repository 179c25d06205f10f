//! `s3fs`, from Debian: a bucket as a directory.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::tool::{Access, aws_environment, output, program};

const PROGRAM: &str = "/usr/bin/s3fs";
const UNMOUNT: &str = "/usr/bin/fusermount";
const DEVICE: &str = "/dev/fuse";
/// How long the mount may take to appear, and to go when it is let go.
const MOUNT_TIME_MAX: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A mounted bucket; unmounted when dropped.
#[derive(Debug)]
pub struct S3fs {
    access: Access,
    at: PathBuf,
}

impl S3fs {
    /// Whether this machine lets anybody mount.
    #[must_use]
    pub fn is_possible() -> bool {
        fs::OpenOptions::new().read(true).write(true).open(DEVICE).is_ok()
    }

    /// Mounts a bucket on the empty directory `at`, and waits until it is there.
    ///
    /// # Errors
    /// When the program fails or nothing is mounted after [`MOUNT_TIME_MAX`].
    pub fn mount(access: &Access, bucket: &str, at: &Path) -> Result<Self> {
        let secret = access.home.join("s3fs.secret");
        fs::write(&secret, format!("{}:{}", access.access_key, access.secret_key))?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        let mut command = program(PROGRAM, access);
        aws_environment(&mut command, access);
        // Its library for HTTP reads the authorities it trusts from here.
        command.env("CURL_CA_BUNDLE", &access.ca).arg(bucket).arg(at);
        for option in [
            format!("url={}", access.endpoint),
            format!("endpoint={}", access.region),
            format!("passwd_file={}", secret.display()),
            "use_path_request_style".into(),
            "sigv4".into(),
            "multipart_size=5".into(),
            "enable_content_md5".into(),
        ] {
            command.args(["-o", &option]);
        }
        output(&mut command)?;
        let mounted = Self { access: access.clone(), at: at.to_path_buf() };
        mounted.wait(true)?;
        Ok(mounted)
    }

    /// Lets go of it once everything is written.
    ///
    /// # Errors
    /// When it cannot be unmounted, files being open in it, say.
    pub fn unmount(self) -> Result<()> {
        output(program(UNMOUNT, &self.access).arg("-u").arg(&self.at))?;
        self.wait(false)
    }

    fn wait(&self, mounted: bool) -> Result<()> {
        let begun = Instant::now();
        while self.is_mounted()? != mounted {
            ensure!(begun.elapsed() < MOUNT_TIME_MAX, "{}: mounted {}", self.at.display(), !mounted);
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// A mount is another device than the directory it is on.
    fn is_mounted(&self) -> Result<bool> {
        let above = self.at.parent().context("a mount point has a directory above")?;
        Ok(fs::metadata(&self.at)?.dev() != fs::metadata(above)?.dev())
    }
}

impl Drop for S3fs {
    fn drop(&mut self) {
        if self.is_mounted().unwrap_or(false) {
            let _ = output(program(UNMOUNT, &self.access).args(["-u", "-z"]).arg(&self.at));
        }
    }
}
