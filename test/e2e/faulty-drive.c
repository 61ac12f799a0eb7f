// A directory served through FUSE that can be told to be slow or to fail: a drive for the tests.
//
//   faulty-drive CONTROL SOURCE MOUNT      stays in the foreground
//
// CONTROL is a file of four 32-bit words, little-endian: milliseconds that a read takes, that a write or flush takes,
// errno of every read, errno of every write and flush. It is mapped: what a test writes there counts at once.

#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static volatile const uint32_t *control;
static int source;

static const char *below(const char *path) { return path[1] == 0 ? "." : path + 1; }

static int result(long done) { return done == -1 ? -errno : (int)done; }

// Waits and fails as the control file says; `which`: 0 for reads, 1 for writes.
static int fault(int which)
{
	struct timespec wait = {control[which] / 1000, control[which] % 1000 * 1000000L};
	if (control[which] > 0)
		nanosleep(&wait, NULL);
	return -(int)control[2 + which];
}

static int f_getattr(const char *path, struct stat *into, struct fuse_file_info *file)
{
	return file ? result(fstat(file->fh, into)) : result(fstatat(source, below(path), into, AT_SYMLINK_NOFOLLOW));
}

static int f_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *file,
		     enum fuse_readdir_flags flags)
{
	(void)offset, (void)file, (void)flags;
	int folder = openat(source, below(path), O_RDONLY | O_DIRECTORY);
	DIR *stream = folder == -1 ? NULL : fdopendir(folder);
	if (stream == NULL)
		return -errno;
	for (struct dirent *entry; (entry = readdir(stream)) != NULL;)
		fill(buffer, entry->d_name, NULL, 0, 0);
	closedir(stream);
	return 0;
}

static int opened(int descriptor, struct fuse_file_info *file)
{
	if (descriptor == -1)
		return -errno;
	// Nothing is cached: every read of the user is one of the drive.
	file->direct_io = 1;
	file->fh = descriptor;
	return 0;
}

static int f_open(const char *path, struct fuse_file_info *file)
{
	return opened(openat(source, below(path), file->flags & ~(O_DIRECT | O_DSYNC | O_SYNC)), file);
}

static int f_create(const char *path, mode_t mode, struct fuse_file_info *file)
{
	return opened(openat(source, below(path), (file->flags & ~(O_DIRECT | O_DSYNC | O_SYNC)) | O_CREAT, mode), file);
}

static int f_read(const char *path, char *into, size_t bytes, off_t offset, struct fuse_file_info *file)
{
	(void)path;
	int failed = fault(0);
	return failed ? failed : result(pread(file->fh, into, bytes, offset));
}

static int f_write(const char *path, const char *from, size_t bytes, off_t offset, struct fuse_file_info *file)
{
	(void)path;
	int failed = fault(1);
	return failed ? failed : result(pwrite(file->fh, from, bytes, offset));
}

static int f_fsync(const char *path, int data, struct fuse_file_info *file)
{
	(void)path, (void)data;
	int failed = fault(1);
	return failed ? failed : result(fdatasync(file->fh));
}

static int f_fallocate(const char *path, int mode, off_t offset, off_t bytes, struct fuse_file_info *file)
{
	(void)path;
	return result(fallocate(file->fh, mode, offset, bytes));
}

static int f_release(const char *path, struct fuse_file_info *file)
{
	(void)path;
	return result(close(file->fh));
}

static int f_rename(const char *from, const char *to, unsigned flags)
{
	return result(renameat2(source, below(from), source, below(to), flags));
}

static int f_unlink(const char *path) { return result(unlinkat(source, below(path), 0)); }

static int f_statfs(const char *path, struct statvfs *into)
{
	(void)path;
	return result(fstatvfs(source, into));
}

static int f_truncate(const char *path, off_t bytes, struct fuse_file_info *file)
{
	(void)path;
	return file ? result(ftruncate(file->fh, bytes)) : -ENOTSUP;
}

int main(int count, char **arguments)
{
	if (count != 4) {
		fprintf(stderr, "usage: faulty-drive CONTROL SOURCE MOUNT\n");
		return 2;
	}
	int descriptor = open(arguments[1], O_RDONLY);
	control = mmap(NULL, 16, PROT_READ, MAP_SHARED, descriptor, 0);
	source = open(arguments[2], O_RDONLY | O_DIRECTORY);
	if (descriptor == -1 || control == MAP_FAILED || source == -1) {
		perror("faulty-drive");
		return 1;
	}
	static const struct fuse_operations operations = {
		.getattr = f_getattr, .readdir = f_readdir, .open = f_open,     .create = f_create,   .read = f_read,
		.write = f_write,     .fsync = f_fsync,     .release = f_release, .rename = f_rename, .unlink = f_unlink,
		.fallocate = f_fallocate, .statfs = f_statfs, .truncate = f_truncate,
	};
	char *options[] = {arguments[0], "-f", "-o", "fsname=faulty-drive", arguments[3], NULL};
	return fuse_main(5, options, &operations, NULL);
}
