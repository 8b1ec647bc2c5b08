//! The kinds of elections that ElectLeaders asks for, and one that Kafka does not have: of a replica that is named.
//!
//! The node travels in a tagged field of the request, which is where Kafka's protocol has room for what it does not know.
//! A broker of another make refuses the kind and elects nobody.

use bytes::Bytes;

use crate::messages::{ElectLeadersRequest, TaggedField, TaggedFields};

/// The first replica of the partition.
pub const PREFERRED: i8 = 0;
/// Any replica, whether it keeps up or not.
pub const UNCLEAN: i8 = 1;
/// The replica on the node that [`name`] writes.
pub const NAMED: i8 = 100;

const NODE_TAG: u32 = 7_600;

/// Makes a request one for the replicas on this node.
pub fn name(request: &mut ElectLeadersRequest, node: i32) {
    request.election_type = NAMED;
    let field = TaggedField::new(NODE_TAG, Bytes::copy_from_slice(&node.to_be_bytes()));
    request.unknown_tagged_fields = TaggedFields::from_sorted(vec![field]).expect("one field is in order");
}

/// The node that a request names.
#[must_use]
pub fn named(request: &ElectLeadersRequest) -> Option<i32> {
    let field = request.unknown_tagged_fields.iter().find(|field| field.tag() == NODE_TAG)?;
    Some(i32::from_be_bytes(field.data().as_ref().try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Request, decode_request};

    #[test]
    fn a_named_node_survives_the_wire() {
        let mut request = ElectLeadersRequest::default();
        assert_eq!(named(&request), None);
        name(&mut request, 3);
        let frame = Request::ElectLeaders(request).encode(2, 1, None).unwrap();
        let (_, decoded) = decode_request(frame.slice(4..)).unwrap();
        let Request::ElectLeaders(decoded) = decoded else { panic!("{decoded:?}") };
        assert_eq!((decoded.election_type, named(&decoded)), (NAMED, Some(3)));
    }
}
