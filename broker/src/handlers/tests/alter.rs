//! Changes of one topic's configuration at the same moment.

use varve_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};

use super::*;
use crate::node::Backend as _;

pub(super) const SET: i8 = 0;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

impl Fixture {
    pub(super) async fn alter(&self, name: &str, operation: i8, value: &str) -> i16 {
        let mut config = AlterableConfig::default();
        (config.name, config.config_operation) = (name.to_owned().into(), operation);
        config.value = Some(value.to_owned().into());
        let mut resource = AlterConfigsResource::default();
        (resource.resource_type, resource.resource_name) = (2, "t".into());
        resource.configs.push(config);
        let mut request = IncrementalAlterConfigsRequest::default();
        request.resources.push(resource);
        match self.ask(1, Request::IncrementalAlterConfigs(request)).await {
            Response::IncrementalAlterConfigs(response) => response.responses[0].error_code,
            other => panic!("{other:?}"),
        }
    }

    fn own(&self) -> Vec<String> {
        let image = self.fake.image();
        let topic = image.topic_by_name("t").unwrap();
        topic.configs.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

#[tokio::test]
async fn two_that_change_one_list_at_once_both_take_effect() {
    let fixture = fixture();
    fixture.metadata(12, "t").await;
    let add = fixture.alter("cleanup.policy", APPEND, "compact");
    let take = fixture.alter("cleanup.policy", SUBTRACT, "delete");
    assert_eq!(futures_util::future::join(add, take).await, (0, 0));
    assert_eq!(fixture.own(), ["cleanup.policy=compact"]);
}

#[tokio::test]
async fn of_two_that_contradict_each_other_at_once_one_is_refused() {
    let fixture = fixture();
    fixture.metadata(12, "t").await;
    let all = fixture.alter("retention.ms", SET, "999");
    let local = fixture.alter("local.retention.ms", SET, "1000");
    let codes = futures_util::future::join(all, local).await;
    assert_eq!(codes, (0, ErrorCode::InvalidConfig.number()));
    assert_eq!(fixture.own(), ["retention.ms=999"]);
}
