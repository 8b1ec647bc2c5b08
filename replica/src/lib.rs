//! What a committed entry means.
