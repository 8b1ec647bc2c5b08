//! The faults at work. An error ends the connection.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use super::{Fault, http::Message};

/// A slow body comes so many times a second.
const PIECES_PER_SECOND: u64 = 10;

/// What befalls a request before the server sees it. Whether it is answered thereby.
pub(super) async fn before(
    client: &mut BufReader<TcpStream>,
    request: &mut Message,
    fault: &Fault,
) -> io::Result<bool> {
    match fault {
        Fault::Status(status, code) => {
            write(client, &Message::error(*status, code), request.method() == "HEAD").await?;
            Ok(true)
        }
        Fault::Hang => hang(client).await,
        Fault::Reset => reset(client.get_mut()).and(Err(ended())),
        Fault::StripRequest(name) => {
            request.remove(name);
            Ok(false)
        }
        _ => Ok(false),
    }
}

/// Sends the answer on, spoiled as the fault says.
pub(super) async fn answer(
    client: &mut BufReader<TcpStream>,
    mut answer: Message,
    fault: Option<&Fault>,
) -> io::Result<()> {
    let half = answer.body.len() / 2;
    match fault {
        Some(Fault::StatusAfter(status, code)) => answer = Message::error(*status, code),
        Some(Fault::HangAfter) => return hang(client).await.map(drop),
        Some(Fault::ResetAfter) => return reset(client.get_mut()).and(Err(ended())),
        Some(Fault::ResetBody | Fault::Truncate) => {
            answer.body.truncate(half);
            client.get_mut().write_all(&answer.bytes()).await?;
            client.get_mut().flush().await?;
            if fault == Some(&Fault::ResetBody) {
                reset(client.get_mut())?;
            }
            return Err(ended());
        }
        Some(Fault::Shorten) => {
            answer.body.truncate(half);
            answer.set_length();
        }
        Some(Fault::Alter) => {
            if let Some(byte) = answer.body.get_mut(half) {
                *byte ^= 0x40;
            }
        }
        Some(Fault::AlterEach(bytes)) => {
            answer.body.chunks_mut(*bytes).for_each(|chunk| chunk[chunk.len() / 2] ^= 0x40);
        }
        Some(Fault::Length(by)) => {
            let length = answer.body.len().saturating_add_signed(*by as isize).to_string();
            answer.set("Content-Length", &length);
            write(client, &answer, false).await?;
            // What is missing or too much would be taken for the next answer's.
            return Err(ended());
        }
        Some(Fault::SlowFirst(wait)) => tokio::time::sleep(*wait).await,
        Some(Fault::Slow(bytes_per_second)) => return slowly(client, &answer, *bytes_per_second).await,
        Some(Fault::StripResponse(name)) => answer.remove(name),
        Some(Fault::ForgetListed) => forget_listed(&mut answer),
        _ => {}
    }
    write(client, &answer, false).await
}

async fn write(client: &mut BufReader<TcpStream>, message: &Message, head_only: bool) -> io::Result<()> {
    let bytes = if head_only { message.head() } else { message.bytes() };
    client.get_mut().write_all(&bytes).await?;
    client.get_mut().flush().await
}

async fn slowly(
    client: &mut BufReader<TcpStream>,
    answer: &Message,
    bytes_per_second: u64,
) -> io::Result<()> {
    client.get_mut().write_all(&answer.head()).await?;
    for piece in answer.body.chunks((bytes_per_second / PIECES_PER_SECOND).max(1) as usize) {
        client.get_mut().write_all(piece).await?;
        client.get_mut().flush().await?;
        tokio::time::sleep(Duration::from_millis(1000 / PIECES_PER_SECOND)).await;
    }
    Ok(())
}

/// Waits until the client goes away.
async fn hang(client: &mut BufReader<TcpStream>) -> io::Result<bool> {
    let mut byte = [0];
    while client.read(&mut byte).await? > 0 {}
    Err(ended())
}

/// Closes so that the other side sees a reset and not an end.
pub(super) fn reset(client: &TcpStream) -> io::Result<()> {
    client.set_zero_linger()
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the fault ends the connection")
}

fn forget_listed(answer: &mut Message) {
    const BEGIN: &str = "<Contents>";
    const END: &str = "</Contents>";
    let Ok(text) = String::from_utf8(answer.body.clone()) else { return };
    if let (Some(begin), Some(end)) = (text.rfind(BEGIN), text.rfind(END)) {
        answer.body = format!("{}{}", &text[..begin], &text[end + END.len()..]).into_bytes();
        answer.set_length();
    }
}
