//! What the host asks of the agent in a guest, and what that answers: frames on a stream of bytes, one of each at a time. Pure but for
//! the stream.
//!
//! A frame is a line of decimal numbers and as many bytes as it says. Limits: 64 MiB a part.

use std::io::{self, BufRead, ErrorKind, Write};
use std::time::Duration;

/// No part of a frame is longer.
const LONGEST: usize = 64 << 20;
/// Exit status of a command that was ended for taking too long, as `timeout` has it.
pub const TOO_LONG: i32 = 124;

/// A command for the guest's shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What the shell is to do.
    pub text: String,
    /// What it reads from its standard input.
    pub input: String,
    /// After this time it is ended; whole seconds.
    pub limit: Duration,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Exit status; 128 and the signal's number where one ended it.
    pub status: i32,
    /// Standard output.
    pub output: Vec<u8>,
    /// Standard error.
    pub complaint: Vec<u8>,
}

impl Order {
    /// Writes it as a frame.
    ///
    /// # Errors
    /// When the stream cannot be written.
    pub fn write(&self, stream: impl Write) -> io::Result<()> {
        let parts = [self.text.as_bytes(), self.input.as_bytes()];
        write_frame(stream, i64::try_from(self.limit.as_secs()), parts)
    }

    /// The next one of a stream.
    ///
    /// # Errors
    /// When the stream ends or holds something else.
    pub fn read(stream: impl BufRead) -> io::Result<Self> {
        let (seconds, [text, input]) = read_frame(stream)?;
        let words = |part| String::from_utf8(part).map_err(invalid);
        Ok(Self {
            text: words(text)?,
            input: words(input)?,
            limit: Duration::from_secs(seconds.try_into().map_err(invalid)?),
        })
    }
}

impl Answer {
    /// Writes it as a frame.
    ///
    /// # Errors
    /// When the stream cannot be written.
    pub fn write(&self, stream: impl Write) -> io::Result<()> {
        let parts = [&self.output[..], &self.complaint[..]];
        write_frame(stream, Ok(i64::from(self.status)), parts)
    }

    /// The next one of a stream.
    ///
    /// # Errors
    /// When the stream ends or holds something else.
    pub fn read(stream: impl BufRead) -> io::Result<Self> {
        let (status, [output, complaint]) = read_frame(stream)?;
        Ok(Self {
            status: status.try_into().map_err(invalid)?,
            output,
            complaint,
        })
    }
}

fn write_frame(
    mut stream: impl Write,
    number: Result<i64, std::num::TryFromIntError>,
    parts: [&[u8]; 2],
) -> io::Result<()> {
    let number = number.map_err(invalid)?;
    let mut frame = format!("{number} {} {}\n", parts[0].len(), parts[1].len()).into_bytes();
    frame.extend(parts.concat());
    stream.write_all(&frame)?;
    stream.flush()
}

fn read_frame(mut stream: impl BufRead) -> io::Result<(i64, [Vec<u8>; 2])> {
    let mut head = String::new();
    if stream.read_line(&mut head)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let numbers: Result<Vec<i64>, _> = head.split_whitespace().map(str::parse).collect();
    let [number, first, second] = numbers.map_err(invalid)?[..] else {
        return Err(invalid(format!("no head of a frame: {head:?}")));
    };
    let mut part = |length: i64| {
        let length = usize::try_from(length).map_err(invalid)?;
        if length > LONGEST {
            return Err(invalid(format!("a part of {length} bytes")));
        }
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    Ok((number, [part(first)?, part(second)?]))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_answers_follow_each_other_on_a_stream() {
        let order = Order {
            text: "cat; echo 'ü\n'".to_owned(),
            input: String::new(),
            limit: Duration::from_secs(90),
        };
        let long = Order {
            input: "x\n".repeat(100_000),
            ..order.clone()
        };
        let mut stream = Vec::new();
        order.write(&mut stream).expect("written");
        long.write(&mut stream).expect("written");
        let mut stream = &stream[..];
        assert_eq!(Order::read(&mut stream).expect("the first"), order);
        assert_eq!(Order::read(&mut stream).expect("the second"), long);

        let answer = Answer {
            status: 137,
            output: vec![0, 10, 255],
            complaint: b"2 0 0\n".to_vec(),
        };
        let mut stream = Vec::new();
        answer.write(&mut stream).expect("written");
        assert_eq!(Answer::read(&stream[..]).expect("an answer"), answer);
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        for bytes in [
            "",
            "hello\n",
            "1 2\n",
            "1 -1 0\n",
            "0 5 0\nabc",
            "0 99999999999 0\n",
        ] {
            assert!(Answer::read(bytes.as_bytes()).is_err(), "{bytes:?}");
        }
    }
}
