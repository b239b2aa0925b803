//! Keeps MySQL clusters and their roles correct.
pub mod resource;
