//! Which keys a store takes: the same for all, so that what one holds another can.

use varve_common::ObjectKey;

use crate::{
    Failure,
    limits::{KEY_BYTES_MAX, KEY_PART_BYTES_MAX},
};

/// Refuses a key that some store could not hold or would read as another: an empty part, `.`, `..`, a leading or
/// trailing slash, a control character, or one that is too long.
pub(crate) fn check(key: &ObjectKey) -> Result<(), Failure> {
    let text = key.as_str();
    let refuse = |why: &str| Err(Failure::Invalid(format!("key {text:?}: {why}")));
    if text.len() > KEY_BYTES_MAX {
        return refuse("too long");
    }
    if text.chars().any(char::is_control) {
        return refuse("holds a control character");
    }
    for part in text.split('/') {
        if part.is_empty() || part == "." || part == ".." {
            return refuse("has an empty, '.' or '..' part");
        }
        if part.len() > KEY_PART_BYTES_MAX {
            return refuse("has a part that is too long");
        }
    }
    Ok(())
}

/// As [`check`], for the folder of a listing, where empty means all.
pub(crate) fn check_folder(folder: &str) -> Result<(), Failure> {
    if folder.is_empty() { Ok(()) } else { check(&ObjectKey::new(folder.to_owned())) }
}

/// Whether `key` lies below `folder`.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn is_within(key: &str, folder: &str) -> bool {
    folder.is_empty() || key.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_keys_that_a_path_would_read_otherwise() {
        for key in ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\0b", "a\nb"] {
            assert!(check(&ObjectKey::new(key.into())).is_err(), "{key:?}");
        }
        assert!(check(&ObjectKey::new("x".repeat(256))).is_err());
        assert!(check(&ObjectKey::new(vec!["abc"; 300].join("/"))).is_err());
    }

    #[test]
    fn takes_keys_with_any_printable_character() {
        for key in ["a", "a/b", "...", "a b+c%2F=?#&", "é/日本"] {
            assert_eq!(check(&ObjectKey::new(key.into())), Ok(()));
        }
    }
}
