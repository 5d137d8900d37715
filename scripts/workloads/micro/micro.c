// What one operation costs, and steady streams of them: the load under scripts/bench capture.
//
// Reads commands from standard input, one a line, and answers each with one line:
//   cost  syscall|socket SIZE BATCHES OPERATIONS   -> "P5 P50" in ns an operation (batches sorted by their mean)
//   pace  RATE SECONDS SIZE                        -> requests done: request and response, both ends in this process
//   flood RATE SECONDS SIZE                        -> socket calls done (a write and a read are two)
// Sockets are loopback TCP and new for every command, so a recorder that is started between two commands sees them
// from their first byte. Build: cc -O2 -pthread -o micro micro.c
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SIZE = 65536, MAX_BATCHES = 100000, MAX_SECONDS = 120 };

static char sent[MAX_SIZE], received[MAX_SIZE];

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

// Two ends of one loopback connection.
static void connect_pair(int ends[2])
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1) ||
        getsockname(listener, (struct sockaddr *)&address, &length))
        fail("listen");
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (ends[0] < 0 || connect(ends[0], (struct sockaddr *)&address, sizeof address))
        fail("connect");
    ends[1] = accept(listener, NULL, NULL);
    if (ends[1] < 0)
        fail("accept");
    close(listener);
    setsockopt(ends[0], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(ends[1], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void send_all(int fd, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t count = write(fd, sent + done, size - done);
        if (count <= 0)
            fail("write");
        done += (size_t)count;
    }
}

static void receive_all(int fd, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t count = read(fd, received + done, size - done);
        if (count <= 0)
            fail("read");
        done += (size_t)count;
    }
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void cost(const char *what, size_t size, int batches, int operations)
{
    static double mean[MAX_BATCHES];
    int ends[2], with_socket = strcmp(what, "socket") == 0;
    connect_pair(ends);
    for (int batch = 0; batch < batches; batch++) {
        uint64_t start = now_ns();
        for (int operation = 0; operation < operations; operation++) {
            if (with_socket) {
                send_all(ends[0], size);
                receive_all(ends[1], size);
            } else {
                syscall(SYS_getppid);
            }
        }
        mean[batch] = (double)(now_ns() - start) / operations;
    }
    close(ends[0]);
    close(ends[1]);
    qsort(mean, (size_t)batches, sizeof mean[0], by_value);
    printf("%.1f %.1f\n", mean[batches / 20], mean[batches / 2]);
}

struct echo {
    int fd;
    size_t size;
    long count;
};

// The serving end of `pace`: reads a request, writes a response.
static void *serve(void *argument)
{
    struct echo *echo = argument;
    for (long done = 0; done < echo->count; done++) {
        receive_all(echo->fd, echo->size);
        send_all(echo->fd, echo->size);
    }
    return NULL;
}

static void sleep_until(uint64_t time)
{
    struct timespec wake = { .tv_sec = (time_t)(time / 1000000000u), .tv_nsec = (long)(time % 1000000000u) };
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, NULL);
}

// Every millisecond its share of the rate. Where the machine can't keep up, the count is reached later.
static void stream(int paced, long rate, int seconds, size_t size)
{
    int ends[2];
    long total = rate * seconds, done = 0;
    connect_pair(ends);
    struct echo echo = { .fd = ends[1], .size = size, .count = total };
    pthread_t server;
    if (paced && pthread_create(&server, NULL, serve, &echo))
        fail("pthread_create");
    uint64_t start = now_ns(), limit = start + (uint64_t)seconds * 2000000000u;
    while (done < total && now_ns() < limit) {
        long due = (long)((double)(now_ns() - start) / 1e9 * (double)rate) + 1;
        for (; done < due && done < total; done++) {
            send_all(ends[0], size);
            if (paced)
                receive_all(ends[0], size);
            else
                receive_all(ends[1], size);
        }
        sleep_until(now_ns() + 1000000u);
    }
    double elapsed = (double)(now_ns() - start) / 1e9;
    shutdown(ends[0], SHUT_RDWR);
    if (paced && done == total)
        pthread_join(server, NULL);
    close(ends[0]);
    close(ends[1]);
    printf("%ld %.3f\n", paced ? done : 2 * done, elapsed);
    if (paced && done < total)
        exit(0); // the server thread still waits; nothing follows after a stream that fell short
}

int main(void)
{
    char line[256], what[16];
    long rate;
    int size, batches, operations, seconds;
    setvbuf(stdout, NULL, _IOLBF, 0);
    // Not compressible into nothing: a run of zeros would flatter every recorder.
    for (int index = 0; index < MAX_SIZE; index++)
        sent[index] = (char)((index * 2654435761u) >> 13);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "cost %15s %d %d %d", what, &size, &batches, &operations) == 4 && size > 0 &&
            size <= MAX_SIZE && batches >= 20 && batches <= MAX_BATCHES && operations > 0)
            cost(what, (size_t)size, batches, operations);
        else if (sscanf(line, "pace %ld %d %d", &rate, &seconds, &size) == 3 && rate > 0 && seconds > 0 &&
                 seconds <= MAX_SECONDS && size > 0 && size <= MAX_SIZE)
            stream(1, rate, seconds, (size_t)size);
        else if (sscanf(line, "flood %ld %d %d", &rate, &seconds, &size) == 3 && rate > 1 && seconds > 0 &&
                 seconds <= MAX_SECONDS && size > 0 && size <= MAX_SIZE)
            stream(0, rate / 2, seconds, (size_t)size);
        else
            printf("? %s", line);
    }
    return 0;
}
