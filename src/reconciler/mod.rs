//! Keeps MySQL clusters and their roles correct: observe, decide, act, every second and at once on a hint.
pub mod action;
pub mod decide;
pub mod resource;
pub mod snapshot;
