/*
 * A small load generator for what smtp-source cannot do: STARTTLS, a latency for each message, messages that can be
 * verified, recipients spread over many accounts, and connections that stay idle.
 *
 *     generator [options] PORT
 *
 * A thread for each connection, and every command waits for its reply, as smtp-source does.
 *
 *     -s N   connections at the same time (20)            -k     keep them: many messages over one
 *     -m N   messages in all (1)                          -T     STARTTLS, a full handshake for each connection
 *     -l N   octets of a message (4096)                   -i N   the number of the first message (0)
 *     -r N   recipients of a message (1)                  -t USER@DOMAIN  the recipient
 *     -n N   spread over 0USER ... (N-1)USER              -I N   no mail: open N connections, then wait for the end of stdin
 *     -b N   with -I: that many source addresses, 127.1.0.1 and on
 *
 * Recipients are named as smtp-source names them: with -r N they are NUSER ... 2USER and USER.
 * The text of message I is the one of bench/texts.py, and depends on I, so that what arrives can be compared.
 * Out: one JSON object on stdout; times in seconds, the latency of a message from its MAIL (with a connection of its own:
 * from the connect) to the reply to its end.  With -I a line "ready" when all stand.
 * Failures: a reply that is not what must come ends the program with status 1 and a line on stderr.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int sessions = 20, recipients = 1, kept, tls, port, sources = 1;
static long messages = 1, first, spread, idle;
static size_t length = 4096;
static char user[128] = "bench", domain[128] = "example.org";
static SSL_CTX *context;
static atomic_long next_message;
static double *latencies;

struct connection {
    int fd;
    SSL *ssl;
    size_t have, used;
    char input[4096];
};

static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("generator: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void put(struct connection *c, const char *data, size_t size)
{
    while (size) {
        ssize_t n = c->ssl ? SSL_write(c->ssl, data, size > 16384 ? 16384 : (int)size) : send(c->fd, data, size, MSG_NOSIGNAL);
        if (n < 0 && !c->ssl && errno == EINTR)
            continue;
        if (n <= 0)
            die("cannot send: %s", strerror(errno));
        data += n;
        size -= n;
    }
}

/* One reply, all its lines; it must begin with `code`. */
static void reply(struct connection *c, const char *code, const char *to)
{
    char line[1024];
    size_t size = 0;
    for (;;) {
        if (c->used == c->have) {
            ssize_t n = c->ssl ? SSL_read(c->ssl, c->input, sizeof c->input) : recv(c->fd, c->input, sizeof c->input, 0);
            if (n < 0 && !c->ssl && errno == EINTR)
                continue;
            if (n <= 0)
                die("the server hung up or was silent instead of a reply to %.40s", to);
            c->have = n;
            c->used = 0;
        }
        char octet = c->input[c->used++];
        if (octet != '\n') {
            if (size < sizeof line - 1)
                line[size++] = octet;
            continue;
        }
        line[size] = 0;
        if (strncmp(line, code, 3) != 0)
            die("the reply to %.40s is: %s", to, line);
        if (size < 4 || line[3] != '-')
            return;
        size = 0;
    }
}

static void ask(struct connection *c, const char *code, const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    put(c, line, size);
    reply(c, code, line);
}

static void greet(struct connection *c, int source)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval patience = {.tv_sec = 60};
    int yes = 1;
    memset(c, 0, sizeof *c);
    if ((c->fd = socket(AF_INET, SOCK_STREAM, 0)) < 0)
        die("no socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (source >= 0) {
        struct sockaddr_in from = {.sin_family = AF_INET};
        from.sin_addr.s_addr = htonl(0x7f010001u + source);
        if (bind(c->fd, (struct sockaddr *)&from, sizeof from) < 0)
            die("cannot bind: %s", strerror(errno));
    }
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("cannot connect: %s", strerror(errno));
    reply(c, "220", "the connection");
    ask(c, "250", "EHLO bench.example.org\r\n");
    if (!tls)
        return;
    ask(c, "220", "STARTTLS\r\n");
    c->ssl = SSL_new(context);
    SSL_set_fd(c->ssl, c->fd);
    if (SSL_connect(c->ssl) != 1)
        die("the TLS handshake failed");
    ask(c, "250", "EHLO bench.example.org\r\n");
}

static void leave(struct connection *c)
{
    ask(c, "221", "QUIT\r\n");
    if (c->ssl)
        SSL_free(c->ssl);
    close(c->fd);
}

/* The text of a message: bench/texts.py has the same, in Python. */
static size_t compose(char *text, long number)
{
    size_t size = sprintf(text, "From: <sender@example.com>\r\nTo: <%s@%s>\r\nSubject: bench\r\nX-Bench: %ld\r\n\r\n", user, domain, number);
    while (size + 72 < length) {
        memset(text + size, 'a' + number % 26, 70);
        memcpy(text + size + 70, "\r\n", 2);
        size += 72;
    }
    return size + sprintf(text + size, "end of %ld\r\n.\r\n", number);
}

static void deliver(struct connection *c, char *text, long number)
{
    ask(c, "250", "MAIL FROM:<sender@example.com>\r\n");
    for (int i = recipients; i > 0; i--) {
        if (spread)
            /* A large odd step: neighbours in time are no neighbours on the disk. */
            ask(c, "250", "RCPT TO:<%ld%s@%s>\r\n", (long)((unsigned long)(number + i) * 7919UL % spread), user, domain);
        else if (i > 1)
            ask(c, "250", "RCPT TO:<%d%s@%s>\r\n", i, user, domain);
        else
            ask(c, "250", "RCPT TO:<%s@%s>\r\n", user, domain);
    }
    ask(c, "354", "DATA\r\n");
    put(c, text, compose(text, number));
    reply(c, "250", "the text");
}

static void *session(void *unused)
{
    struct connection c;
    char *text = malloc(length + 1024);
    (void)unused;
    if (kept)
        greet(&c, -1);
    for (long i; (i = atomic_fetch_add(&next_message, 1)) < messages;) {
        double begun = now();
        if (!kept)
            greet(&c, -1);
        deliver(&c, text, first + i);
        latencies[i] = now() - begun;
        if (!kept)
            leave(&c);
    }
    if (kept)
        leave(&c);
    free(text);
    return NULL;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void load(void)
{
    pthread_t *threads = calloc(sessions, sizeof *threads);
    latencies = calloc(messages, sizeof *latencies);
    double begun = now();
    for (int i = 0; i < sessions; i++)
        if (pthread_create(&threads[i], NULL, session, NULL) != 0)
            die("cannot start a thread");
    for (int i = 0; i < sessions; i++)
        pthread_join(threads[i], NULL);
    double took = now() - begun;
    qsort(latencies, messages, sizeof *latencies, ascending);
    printf("{\"seconds\": %.6f, \"p50\": %.6f, \"p99\": %.6f, \"longest\": %.6f}\n", took, latencies[messages / 2],
           latencies[messages * 99 / 100], latencies[messages - 1]);
}

static void stay(void)
{
    struct connection *all = calloc(idle, sizeof *all);
    for (long i = 0; i < idle; i++)
        greet(&all[i], i % sources);
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF)
        ;
}

int main(int count, char **arguments)
{
    int option;
    while ((option = getopt(count, arguments, "s:m:l:r:n:kTi:t:I:b:")) != -1)
        switch (option) {
        case 's': sessions = atoi(optarg); break;
        case 'm': messages = atol(optarg); break;
        case 'l': length = atol(optarg); break;
        case 'r': recipients = atoi(optarg); break;
        case 'n': spread = atol(optarg); break;
        case 'k': kept = 1; break;
        case 'T': tls = 1; break;
        case 'i': first = atol(optarg); break;
        case 't': if (sscanf(optarg, "%127[^@]@%127s", user, domain) != 2) die("-t: no USER@DOMAIN"); break;
        case 'I': idle = atol(optarg); break;
        case 'b': sources = atoi(optarg); break;
        default: die("the options are in the source");
        }
    if (optind + 1 != count || (port = atoi(arguments[optind])) < 1 || sessions < 1 || messages < 1 || sources < 1)
        die("generator [options] PORT");
    if (tls) {
        context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    }
    if (idle)
        stay();
    else
        load();
    return 0;
}
