//! `bare [ADDRESS] [CPU] [COMPLETIONS MICROSECONDS]`: the loop of [`bench::bare`] on a socket, until it is killed. With the last
//! two a wait gathers. Prints where it listens.

use std::net::TcpListener;

use bench::bare;
use ringmq::io::sockets;

fn main() -> Result<(), String> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| -> Result<Option<u32>, String> {
        let Some(text) = args.get(at) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| format!("'{text}' is not a number"))
    };
    let address = args.first().map_or("127.0.0.1:0", String::as_str);
    if let Some(cpu) = number(1)? {
        sockets::pin(cpu as u16).map_err(|error| format!("CPU {cpu}: {error}"))?;
    }
    let gather = number(2)?.zip(number(3)?).map(|(completions, micros)| (completions as usize, micros));
    let listener = TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?;
    eprintln!("listening on {}", listener.local_addr().map_err(|error| error.to_string())?);
    bare::run(&listener, gather)
}
