/* A broker of librdkafka's mock cluster, until standard input ends. Prints its address, after it has noted which answers
   are to fail: two to Produce, one to OffsetCommit. */
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>

int main(void) {
    char error[512];
    rd_kafka_conf_t *configuration = rd_kafka_conf_new();
    rd_kafka_conf_set(configuration, "client.id", "host", error, sizeof error);
    rd_kafka_t *host = rd_kafka_new(RD_KAFKA_PRODUCER, configuration, error, sizeof error);
    rd_kafka_mock_cluster_t *cluster = host ? rd_kafka_mock_cluster_new(host, 1) : NULL;
    if (!cluster)
        return 1;
    rd_kafka_mock_topic_create(cluster, "orders", 2, 1);
    rd_kafka_mock_push_request_errors(cluster, 0, 2, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
                                      RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT);
    rd_kafka_mock_push_request_errors(cluster, 8, 1, RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS);
    puts(rd_kafka_mock_cluster_bootstraps(cluster));
    fflush(stdout);
    while (getchar() != EOF)
        ;
    rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(host);
    return 0;
}
