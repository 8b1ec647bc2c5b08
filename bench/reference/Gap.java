import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Writes 1,000 records a second for so long and prints the longest time between two acknowledgements, in seconds. */
public class Gap {
    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        properties.put("acks", "all");
        properties.put("linger.ms", "0");
        // What is to be measured are the brokers, not how long a client waits by itself.
        properties.put("retry.backoff.ms", "2");
        properties.put("retry.backoff.max.ms", "2");
        // Less, and it always has a connection to the dead leader under way, and asks nobody for the next one while it does.
        properties.put("reconnect.backoff.ms", "50");
        properties.put("reconnect.backoff.max.ms", "50");
        properties.put("request.timeout.ms", "2000");
        properties.put("delivery.timeout.ms", "60000");
        String topic = arguments[1];
        AtomicLong last = new AtomicLong(), longest = new AtomicLong(), failed = new AtomicLong();
        try (var producer = new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer())) {
            byte[] value = new byte[1024];
            producer.send(new ProducerRecord<>(topic, 0, null, value)).get();
            System.out.println("writing");
            long begin = System.nanoTime(), end = begin + Long.parseLong(arguments[2]) * 1_000_000_000L;
            last.set(begin);
            for (long number = 0, due = begin; due < end; number++, due = begin + number * 1_000_000L) {
                long early = due - System.nanoTime();
                if (early > 0) Thread.sleep(early / 1_000_000L, (int) (early % 1_000_000L));
                producer.send(new ProducerRecord<>(topic, 0, null, value), (metadata, error) -> {
                    if (error != null) {
                        if (failed.incrementAndGet() == 1) System.err.println("the first that failed: " + error);
                        return;
                    }
                    long now = System.nanoTime();
                    long gap = now - last.getAndSet(now);
                    longest.accumulateAndGet(gap, Math::max);
                });
            }
        }
        if (failed.get() > 0) System.err.println(failed.get() + " records failed");
        System.out.printf(java.util.Locale.ROOT, "%.3f%n", longest.get() / 1e9);
    }
}
