//! Calls of another node, served as they come: replies leave as they are ready.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use varve_common::{NodeId, clock::BoxFuture};

use super::{
    Shared,
    calls::{CallHead, Outcome},
    frame::{FrameError, Kind},
    handshake::Purpose,
    inbound::End,
    limits::{CALL_BYTES_MAX, SERVED_BYTES_MAX, SERVED_FOR_MAX, SERVED_MAX},
    talk::{Heard, Input, Output, Signs, say, within},
};

/// A call that ended: its head for the reply, what it held, and the reply.
type Served = (CallHead, usize, Bytes);

struct Serving {
    running: FuturesUnordered<BoxFuture<'static, Served>>,
    bytes: usize,
}

/// Serves calls until the connection ends.
pub async fn calls(
    shared: &Arc<Shared>,
    from: (NodeId, Purpose),
    mut input: Input,
    mut output: Output,
) -> Result<End, End> {
    let heard = Heard::new(Arc::clone(&shared.clock));
    tokio::select! {
        end = answer(shared, from, &heard, &mut input, &mut output) => end,
        () = heard.silence(shared.limits.inbound_silent_max) => Ok(End::Silent),
    }
}

async fn answer(
    shared: &Arc<Shared>,
    from: (NodeId, Purpose),
    heard: &Heard,
    input: &mut Input,
    output: &mut Output,
) -> Result<End, End> {
    let mut signs = Signs::new(shared.limits.alive_every);
    let mut serving = Serving { running: FuturesUnordered::new(), bytes: 0 };
    loop {
        let room = serving.running.len() < SERVED_MAX && serving.bytes < SERVED_BYTES_MAX;
        tokio::select! {
            frame = input.frames.next(&mut input.half, &[Kind::Call, Kind::Ping]), if room => {
                let frame = frame?;
                signs.show(heard.mark(), output).await?;
                if let Some(frame) = frame && frame.kind == Kind::Call {
                    serving.begin(shared, from, frame.body)?;
                }
            }
            Some((head, bytes, body)) = serving.running.next() => {
                serving.bytes -= bytes;
                say(output, Kind::Reply, &head.encode(&body)).await?;
                heard.mark();
            }
        }
    }
}

impl Serving {
    fn begin(&mut self, shared: &Arc<Shared>, from: (NodeId, Purpose), body: Bytes) -> Result<(), End> {
        let (head, body) = CallHead::decode(body).map_err(FrameError::malformed(Kind::Call))?;
        let bytes = body.len();
        self.bytes += bytes;
        let patience = Duration::from_millis(u64::from(head.number)).min(SERVED_FOR_MAX);
        let reply = match from {
            (from, Purpose::Pieces) => shared.handler.piece(from, body),
            (from, _) => shared.handler.call(from, body),
        };
        let clock = Arc::clone(&shared.clock);
        self.running.push(Box::pin(async move {
            let (outcome, body) = match within(&*clock, patience, reply).await {
                Some(body) if body.len() <= CALL_BYTES_MAX => (Outcome::Done, body),
                Some(_) => (Outcome::TooLarge, Bytes::new()),
                None => (Outcome::Late, Bytes::new()),
            };
            (CallHead { id: head.id, number: outcome as u32 }, bytes, body)
        }));
        Ok(())
    }
}
