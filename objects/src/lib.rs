//! The object store: create-only puts, ranged gets.
