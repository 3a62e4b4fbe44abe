//! The compiled tokenizer against the `tokenizers` library, and against damage.

mod damage;
mod families;
mod generate;
mod oracle;
mod special;
mod speed;
mod strings;
