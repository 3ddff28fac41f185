use super::*;
use proptest::prelude::*;

fn metas() -> impl Strategy<Value = MessageMeta> {
    let pairs = || prop::collection::vec((".{0,5}", ".{0,5}").prop_map(|(n, v)| (n.into(), v.into())), 0..3);
    (".{0,30}", pairs(), pairs()).prop_map(|(name, properties, facts)| MessageMeta {
        name: name.into(),
        properties,
        facts,
    })
}

/// Arrival step, payload, which meta, mark.
type Given = (i64, Vec<u8>, prop::sample::Index, u64);

fn events() -> impl Strategy<Value = (Vec<MessageMeta>, Vec<Given>)> {
    let event = (0i64..1 << 40, prop::collection::vec(any::<u8>(), 0..40), any::<prop::sample::Index>(), any::<u64>());
    (prop::collection::vec(metas(), 1..4), prop::collection::vec(event, 0..40))
}

proptest! {
    #[test]
    fn what_is_encoded_decodes((metas, events) in events(), first in 0..i64::MAX / 2) {
        let shared: Vec<Arc<MessageMeta>> = metas.into_iter().map(Arc::new).collect();
        let mut builder = EventBuilder::default();
        let mut arrival = Timestamp::MIN;
        let mut given = Vec::new();
        for (step, payload, meta, mark) in events {
            arrival = arrival.saturating_add(step);
            let message = meta.get(&shared).clone();
            let event = RawEvent { arrival, payload: Bytes::from(payload), message, mark };
            builder.push(&event, arrival);
            given.push(event);
        }
        let segment = EventSegment::decode(first, 7, Bytes::from(builder.finish())).unwrap();
        prop_assert!(builder.is_empty());
        prop_assert_eq!(segment.len(), given.len());
        for (i, event) in given.iter().enumerate() {
            let read = segment.get(i).unwrap();
            prop_assert_eq!(read.offset, first + i as i64);
            prop_assert_eq!(read.arrival, event.arrival);
            prop_assert_eq!(read.payload, &event.payload[..]);
            prop_assert_eq!(read.message, &event.message);
            prop_assert_eq!(read.mark, event.mark);
        }
    }

    #[test]
    fn a_changed_byte_never_panics(
        (metas, events) in events(),
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
    ) {
        let mut builder = EventBuilder::default();
        for (_, payload, meta, mark) in events {
            let message = Arc::new(meta.get(&metas).clone());
            builder.push(
                &RawEvent { arrival: Timestamp::MIN, payload: Bytes::from(payload), message, mark },
                Timestamp::MIN,
            );
        }
        let mut raw = builder.finish();
        let at = at.index(raw.len());
        raw[at] = to;
        if let Ok(segment) = EventSegment::decode(0, 1, Bytes::from(raw)) {
            prop_assert!((0..segment.len()).all(|i| segment.get(i).is_some()));
        }
    }
}

#[test]
fn equal_messages_are_stored_once() {
    let mut builder = EventBuilder::default();
    for _ in 0..100 {
        let message = Arc::new(MessageMeta { name: "plant/line/7/temperature".into(), ..MessageMeta::default() });
        builder.push(&RawEvent { arrival: Timestamp::MIN, payload: Bytes::new(), message, mark: 0 }, Timestamp::MIN);
    }
    assert!(builder.finish().len() < 500);
}

#[test]
fn the_first_form_is_still_read() {
    let mut raw = vec![FORM_MQTT, 2];
    for (topic, qos, retain, property) in [("a/1", 1, 0, None), ("a/2", 0, 1, Some(("site", "north")))] {
        put_bytes(&mut raw, topic.as_bytes());
        raw.extend([qos, retain]);
        put_varint(&mut raw, property.iter().count() as u64);
        if let Some((name, value)) = property {
            put_bytes(&mut raw, name.as_bytes());
            put_bytes(&mut raw, value.as_bytes());
        }
    }
    raw.push(2);
    put_signed(&mut raw, 1_000);
    // message, packet id, length; then the difference of arrivals and the same again
    raw.extend([0, 7, 1, 5, 1, 0, 2]);
    raw.extend(b"xyz");
    let segment = EventSegment::decode(40, 3, Bytes::from(raw)).unwrap();
    let pair = |name: &str, value: &str| vec![(SmolStr::new(name), SmolStr::new(value))];
    let read: Vec<_> =
        (0..2).filter_map(|i| segment.get(i)).map(|e| (e.offset, e.arrival.ticks(), e.mark, e.payload)).collect();
    assert_eq!(read, [(40, 1_000, 7, &b"x"[..]), (41, 1_005, 0, b"yz")]);
    let first = MessageMeta { name: "a/1".into(), facts: pair("qos", "1"), ..MessageMeta::default() };
    let second = MessageMeta { name: "a/2".into(), facts: pair("retain", "true"), properties: pair("site", "north") };
    assert_eq!([&**segment.get(0).unwrap().message, segment.get(1).unwrap().message], [&first, &second]);
}
