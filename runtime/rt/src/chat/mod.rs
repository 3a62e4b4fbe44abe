//! Conversations as prompts: the model's chat template rendered so that what users wrote can never
//! become a control token, whatever it spells.

mod generation;
mod json;
mod methods;
pub mod protect;
pub mod template;

pub use protect::Part;
pub use template::{ChatTemplate, Message};
