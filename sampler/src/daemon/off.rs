//! The kernel side taken off while the daemon lives: the disable file is there, or the cost came above its limit.
//!
//! Input: a look at the disable file, several times a second. Output: nothing of ours in the kernel nor in the service manager's
//! store, a last window with all that was counted, heartbeats that go on and say why, and a note in the state directory: since when
//! nothing is counted, for the life that attaches again.
//!
//! That is always another life. The capabilities that an attach needs are given up after the first one, so once the file is gone the
//! process ends with [`service::exit::AGAIN`], for whoever supervises it to start it again: the shipped unit does so after two seconds.
//! A daemon that starts beside the file gives its capabilities up too, without attaching. What the limit took off stays off until
//! the service is restarted (or the file is made and removed): what cost too much would only cost it again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use sampler_event::Flag;
use serde::{Deserialize, Serialize};

use super::{
    life::replace,
    node::{Edge, Node},
    time,
};
use crate::{sink::Ledger, stage::state::Attachment};

/// How often the disable file is looked for: it counts within a second.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// The note in the state directory.
const FILE: &str = "off";

/// Why the kernel side is off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Why {
    /// This file is there.
    Disabled(PathBuf),
    /// The cost came above its limit: how far, in words.
    Limit(String),
}

/// That nothing is counted, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Off {
    /// Unix time of the last window's end.
    pub(super) since_ms: u64,
    pub(super) why: Why,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Disabled(path) => write!(f, "disabled by {}", path.display()),
            Self::Limit(cost) => write!(f, "detached for what it cost: {cost}"),
        }
    }
}

impl Off {
    /// As heartbeats say it.
    pub(super) fn kernel_mode(&self) -> &'static str {
        match self.why {
            Why::Disabled(_) => "disabled",
            Why::Limit(_) => "detached",
        }
    }

    /// What is to be done about it, for a person.
    pub(super) fn limited(&self) -> String {
        let return_by = match self.why {
            Why::Disabled(_) => "it attaches again when the file is gone",
            Why::Limit(_) => "it attaches again when it is restarted",
        };
        format!("nothing is counted: {}; {return_by}", self.why)
    }

    /// What a heartbeat says instead of the kernel side in use.
    pub(super) fn attachment(&self, now_ms: u64) -> Attachment {
        Attachment {
            cells_id: 0,
            attached_ms: 0,
            uncounted_ms: now_ms.saturating_sub(self.since_ms),
            uncounted_reason: self.why.to_string(),
        }
    }

    /// The note of an earlier life, if it left one.
    pub(super) fn read(state: &Path) -> Option<Self> {
        let text = match fs::read(state.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%error, "the note on since when nothing was counted cannot be read");
                return None;
            }
        };
        serde_json::from_slice(&text)
            .inspect_err(|error| tracing::warn!(%error, "the note on since when nothing was counted is damaged"))
            .ok()
    }

    /// Leaves the note.
    pub(super) fn write(&self, state: &Path) {
        let written = serde_json::to_vec(self).map_err(io::Error::from);
        if let Err(error) = written.and_then(|text| replace(&state.join(FILE), text)) {
            tracing::error!(%error, "the next life will not know since when nothing was counted");
        }
    }

    /// Takes it away: somebody counts again.
    pub(super) fn remove(state: &Path) {
        match fs::remove_file(state.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(%error, "the note on since when nothing was counted stays");
            }
            _ => {}
        }
    }
}

/// Whether the disable file is there; whatever it is. `None`: it cannot be said.
pub(super) fn is_disabled(path: &Path) -> Option<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Some(true),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Some(false),
            _ => None,
        },
    }
}

/// What a look brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing new.
    Same,
    /// The kernel side is to be taken off.
    TakeOff(Why),
    /// The process is to end, and to be started again.
    StartAgain,
}

/// What follows from a look at the disable file. Pure.
fn judge(off: Option<&Off>, there: Option<bool>, path: &Path) -> Look {
    let disabled = || Why::Disabled(path.to_owned());
    match (off.map(|off| &off.why), there) {
        (None | Some(Why::Limit(_)), Some(true)) => Look::TakeOff(disabled()),
        // Another file may be named by now.
        (Some(Why::Disabled(known)), Some(true)) if known != path => Look::TakeOff(disabled()),
        (Some(Why::Disabled(_)), Some(false)) => Look::StartAgain,
        _ => Look::Same,
    }
}

impl Node {
    /// Looks for the disable file.
    pub(super) fn look(&mut self) -> Look {
        let path = &self.config().limits.disable_file;
        let there = is_disabled(path);
        let look = judge(self.off.as_ref(), there, path);
        if there.is_none() && !self.blind {
            tracing::warn!(path = %path.display(), "whether limits.disable_file is there cannot be seen: it does nothing");
        }
        self.blind = there.is_none();
        look
    }

    /// Takes the kernel side off, and closes the window with all that was counted; if it is off already, says another reason.
    pub(super) fn take_off(&mut self, why: Why, ledger: &Ledger) -> Edge {
        tracing::warn!("{why}: the kernel side is taken off");
        let begin_ms = time::now().wall_ms;
        let was_off = self.off.is_some();
        if !was_off {
            // Open flows are closed out while their callbacks still come, so none ends between the two unseen.
            let window_ms = self.config().window.length_ms;
            self.stage.give_up(window_ms, time::now(), &self.side);
            let folded = self.side.fold_last();
            self.folded(folded);
        }
        let off = Off {
            since_ms: self.off.as_ref().map_or(begin_ms, |off| off.since_ms),
            why,
        };
        if let Some(state) = &self.state_directory {
            off.write(state);
        }
        self.set_off(off);
        if !was_off {
            self.flags |= Flag::Detached as u32;
        }
        let edge = self.close_window(time::now(), ledger, false);
        self.side.take_off();
        edge
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_off_and_its_end_starts_again() {
        let path = Path::new("/etc/flowvitals/disabled");
        let off = |why| Off { since_ms: 7, why };
        let disabled = off(Why::Disabled(path.to_owned()));
        let limited = off(Why::Limit("2 %".to_owned()));
        let take_off = || Look::TakeOff(Why::Disabled(path.to_owned()));
        let check = |off: Option<&Off>, there, expected| {
            assert_eq!(judge(off, there, path), expected, "{off:?} {there:?}");
        };
        check(None, Some(false), Look::Same);
        check(None, Some(true), take_off());
        check(Some(&disabled), Some(true), Look::Same);
        check(Some(&disabled), Some(false), Look::StartAgain);
        check(Some(&limited), Some(false), Look::Same);
        check(Some(&limited), Some(true), take_off());
        for off in [None, Some(&disabled), Some(&limited)] {
            check(off, None, Look::Same);
        }
        let other = off(Why::Disabled("/run/other".into()));
        check(Some(&other), Some(true), take_off());
    }

    #[test]
    fn anything_of_that_name_disables() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("disabled");
        assert_eq!(is_disabled(&path), Some(false));
        assert_eq!(is_disabled(&path.join("below")), Some(false));
        std::os::unix::fs::symlink("/nowhere", &path).expect("a link");
        assert_eq!(is_disabled(&path), Some(true));
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "").expect("a file");
        assert_eq!(is_disabled(&path.join("below")), Some(false));
        assert_eq!(is_disabled(&path), Some(true));
    }

    #[test]
    fn the_next_life_knows_since_when() {
        let state = tempfile::tempdir().expect("a directory");
        assert_eq!(Off::read(state.path()), None);
        let off = Off {
            since_ms: 1_795_000_000_000,
            why: Why::Limit("3 %".to_owned()),
        };
        off.write(state.path());
        assert_eq!(Off::read(state.path()), Some(off.clone()));
        let said = off.attachment(1_795_000_005_000);
        assert_eq!((said.attached_ms, said.uncounted_ms), (0, 5_000));
        Off::remove(state.path());
        assert_eq!(Off::read(state.path()), None);
        Off::remove(state.path());
        fs::write(state.path().join(FILE), "{").expect("junk");
        assert_eq!(Off::read(state.path()), None);
    }
}
