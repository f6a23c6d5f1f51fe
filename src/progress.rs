//! Progress on standard error, if that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over `total` of something; hidden where nobody watches.
pub(crate) fn bar(total: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let template = "{bar:30} {human_pos}/{human_len} {msg} ({eta})";
    bar.with_style(ProgressStyle::with_template(template).expect("the template is valid"))
        .with_message(what)
}
