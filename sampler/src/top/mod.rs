//! `top`: a live view of one sampler.
//!
//! Input: its `/metrics`. Output: a picture that moves on with every window at a terminal; one table for a pipe.
//! Limits: asks once a second; reads the endpoint only, never the kernel.

mod client;
mod rates;
mod view;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::DefaultTerminal;
use tokio::time::{Instant, sleep};

pub use client::{Endpoint, TopError};

use self::rates::{moved_on, node_line, rows};
use service::metrics::Parsed;

/// Where a sampler listens unless it is told otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:9740/metrics";
/// Time between two questions.
const PERIOD: Duration = Duration::from_secs(1);
/// Time between two looks at the keyboard.
const KEY_PERIOD: Duration = Duration::from_millis(50);
/// Longest wait for a next window: the longest window is 10 s.
const WINDOW_PATIENCE: Duration = Duration::from_secs(12);

/// Shows the sampler at `url` until `q` at a terminal; once for anything else.
pub async fn run(url: &str) -> Result<(), TopError> {
    let endpoint = Endpoint::new(url)?;
    // The first question comes before the terminal is taken: an error is then a plain line.
    let first = endpoint.scrape().await?;
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return once(&endpoint, first, &mut stdout.lock()).await;
    }
    let mut terminal = ratatui::try_init()?;
    let outcome = live(&endpoint, first, &mut terminal).await;
    ratatui::restore();
    outcome
}

/// Writes one table, over the time to the next window.
pub async fn once(
    endpoint: &Endpoint,
    before: Parsed,
    out: &mut impl Write,
) -> Result<(), TopError> {
    let start = Instant::now();
    loop {
        sleep(PERIOD).await;
        let now = endpoint.scrape().await?;
        if moved_on(&before, &now) || start.elapsed() >= WINDOW_PATIENCE {
            let text = view::plain(&node_line(&before, &now), &rows(&before, &now));
            return Ok(out.write_all(text.as_bytes())?);
        }
    }
}

async fn live(
    endpoint: &Endpoint,
    first: Parsed,
    terminal: &mut DefaultTerminal,
) -> Result<(), TopError> {
    let (mut before, mut now) = (first.clone(), first);
    let mut note = Some("waiting for the next window".to_owned());
    loop {
        let (node, rows) = (node_line(&before, &now), rows(&before, &now));
        terminal.draw(|frame| view::draw(frame, &node, &rows, note.as_deref()))?;
        let until = Instant::now() + PERIOD;
        while Instant::now() < until {
            if quit_pressed()? {
                return Ok(());
            }
            sleep(KEY_PERIOD).await;
        }
        match endpoint.scrape().await {
            Ok(next) if moved_on(&now, &next) => {
                before = std::mem::replace(&mut now, next);
                note = None;
            }
            Ok(_) => {}
            // The sampler may be restarting: what was last seen stays on the screen.
            Err(error) => note = Some(error.to_string()),
        }
    }
}

fn quit_pressed() -> std::io::Result<bool> {
    while event::poll(Duration::ZERO)? {
        if let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            let control_c =
                key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
