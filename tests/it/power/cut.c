/* Preloaded into the service by a test: it notes how much of each file under POWER_FOLDER was made safe by fsync, so that
 * the test can take away the rest as a power cut would; and it has fsync or write fail while the test says so.
 *
 * POWER_FOLDER   the folder whose files are watched
 * POWER_STATE    a folder of the test's own: `safe` gets a line "SIZE PATH" for each fsync that succeeded, and
 *                "RENAME OLD<TAB>NEW" for each rename; while `eio` is there fsync fails, while `enospc` is there write does
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(type, name) ((type)dlsym(RTLD_NEXT, name))

typedef int (*one_fd)(int);
typedef int (*two_paths)(const char *, const char *);
typedef ssize_t (*write_fd)(int, const void *, size_t);
typedef ssize_t (*writev_fd)(int, const struct iovec *, int);
typedef ssize_t (*pwrite_fd)(int, const void *, size_t, off64_t);

static int is_ordered(const char *order) {
    const char *state = getenv("POWER_STATE");
    char path[PATH_MAX];
    if (!state) return 0;
    snprintf(path, sizeof path, "%s/%s", state, order);
    return access(path, F_OK) == 0;
}

/* Whether the descriptor is a file under the folder; then its path. */
static int is_watched(int fd, char path[PATH_MAX]) {
    const char *folder = getenv("POWER_FOLDER");
    char link[64];
    if (!folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

static void note(const char *line) {
    const char *state = getenv("POWER_STATE");
    char path[PATH_MAX];
    if (!state) return;
    snprintf(path, sizeof path, "%s/safe", state);
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return;
    ssize_t written = REAL(write_fd, "write")(fd, line, strlen(line));
    (void)written;
    close(fd);
}

static int sync_with(const char *name, int fd) {
    char path[PATH_MAX], line[PATH_MAX + 64];
    struct stat before;
    int watched = is_watched(fd, path);
    if (watched && is_ordered("eio")) {
        errno = EIO;
        return -1;
    }
    /* What is written while it syncs may not be safe. */
    int known = watched && fstat(fd, &before) == 0;
    int result = REAL(one_fd, name)(fd);
    if (result == 0 && known && S_ISREG(before.st_mode)) {
        snprintf(line, sizeof line, "%lld %s\n", (long long)before.st_size, path);
        note(line);
    }
    return result;
}

int fsync(int fd) { return sync_with("fsync", fd); }
int fdatasync(int fd) { return sync_with("fdatasync", fd); }

int rename(const char *from, const char *to) {
    const char *folder = getenv("POWER_FOLDER");
    char line[2 * PATH_MAX + 16];
    int result = REAL(two_paths, "rename")(from, to);
    if (result == 0 && folder && strncmp(to, folder, strlen(folder)) == 0) {
        snprintf(line, sizeof line, "RENAME %s\t%s\n", from, to);
        note(line);
    }
    return result;
}

static int is_full(int fd) {
    char path[PATH_MAX];
    if (!is_ordered("enospc") || !is_watched(fd, path)) return 0;
    errno = ENOSPC;
    return 1;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    return is_full(fd) ? -1 : REAL(write_fd, "write")(fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return is_full(fd) ? -1 : REAL(writev_fd, "writev")(fd, parts, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    return is_full(fd) ? -1 : REAL(pwrite_fd, "pwrite64")(fd, bytes, count, offset);
}
