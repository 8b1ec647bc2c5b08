//! A node whose registration is taken, and whose own metadata is behind.

use std::{sync::Arc, time::Duration};

use varve_common::{ClusterId, Incarnation, LogIndex, NodeId};
use varve_replica::{
    Reply,
    metadata::{Broker, Image, MetadataDone},
};

use super::*;
use crate::{
    controller::Link,
    runtime::{
        clock::SystemClock,
        mailbox::{Mail, mailbox},
        views::Views,
    },
};

const PATIENCE: Duration = Duration::from_secs(60);

fn node() -> NodeId {
    NodeId::new(3).unwrap()
}

fn registration() -> BrokerRegistration {
    let node = node().get();
    BrokerRegistration { node, advertised: Vec::new(), rack: None, peer: None, disk: 0, level: 0 }
}

/// As a node has it that has applied nothing, or its own registration.
fn image(is_registered: bool) -> Image {
    let mut image = Image::new(ClusterId::from_random(1), Incarnation(1));
    if is_registered {
        let registration = registration();
        let advertised = registration.advertised;
        let broker = Broker { node: node(), advertised, rack: None, epoch: 1, peer: None, level: 0 };
        image.index = LogIndex(9);
        Arc::make_mut(&mut image.brokers).insert(node(), broker);
    }
    image
}

#[tokio::test]
async fn a_node_whose_metadata_does_not_know_it_is_not_ready_to_serve() {
    let (views, link, clock) = (Views::new(image(false)), Link::default(), SystemClock::new());
    let (mailbox, inbox) = mailbox();
    // A shard that takes every registration, and shows it from the third on.
    let shown = views.clone();
    let shard = std::thread::spawn(move || {
        let mut taken = 0;
        while let Some(letters) = inbox.take(PATIENCE) {
            for letter in letters {
                let Mail::Request { answer, .. } = letter else { return taken };
                taken += 1;
                if taken == 3 {
                    shown.set_image(&image(true));
                }
                answer
                    .send(Reply::Metadata(Ok(MetadataDone::BrokerRegistered { node: node(), epoch: 1 })))
                    .unwrap();
            }
        }
        taken
    });
    let changes = Changes { node: node(), mailbox: &mailbox, views: &views, link: &link, clock: &clock };
    until_known(&changes, registration(), Among::Others, &Start::new(Arc::default())).await.unwrap();
    assert!(views.image().brokers.contains_key(&node()));
    mailbox.send(Mail::Stop);
    assert_eq!(shard.join().unwrap(), 3, "it goes on where its own metadata shows it, and not before");
}
