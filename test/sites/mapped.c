// A program that changes a file through a mapping and does what it is told: "store X" fills it with that letter, "sync"
// tells the errno of msync. Each is answered with a line.

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BYTES = 256 * 1024 };

int main(int argc, char **argv) {
  int fd = argc == 2 ? open(argv[1], O_RDWR | O_CREAT, 0644) : -1;
  if (fd < 0 || ftruncate(fd, BYTES) != 0) return 1;
  char *map = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) return 1;
  char line[64];
  while (fgets(line, sizeof line, stdin) != NULL) {
    if (strncmp(line, "store ", 6) == 0) {
      memset(map, line[6], BYTES);
      printf("stored\n");
    } else {
      printf("%d\n", msync(map, BYTES, MS_SYNC) == 0 ? 0 : errno);
    }
    fflush(stdout);
  }
  return 0;
}
