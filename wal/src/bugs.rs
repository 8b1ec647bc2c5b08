//! Bugs that tests switch on to prove that they would find them. Compiled with feature `seeded-bugs` only.

/// Which bugs are on; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bugs {
    /// `sync` returns without having synced (T17, W1).
    pub ack_before_fsync: bool,
    /// Hard states are not written (T9).
    pub hard_state_not_persisted: bool,
    /// Checksums of payloads are not looked at (W2).
    pub crc_ignored: bool,
    /// Appends go on in the old file behind whatever the crash left there (T10, W3).
    pub torn_tail_appended_behind: bool,
    /// Any closed file without live bytes is removed, not only the oldest (W6).
    pub files_freed_out_of_order: bool,
    /// The forward rewrite writes values captured one maintenance round earlier (W6).
    pub queued_forward_rewrite: bool,
}
