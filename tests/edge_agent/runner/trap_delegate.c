/* SPDX-License-Identifier: Apache-2.0
 *
 * A TensorFlow Lite external delegate that misbehaves as its option "mode" says. It declares only as much of the
 * interpreter's C structures as it touches, in the order in which the interpreter keeps them (stable since 2.4).
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { int size; int data[]; } IntArray;
typedef struct Context Context;
typedef struct Delegate Delegate;
typedef struct {
  void *(*init)(Context *, const char *, size_t);
  void (*free)(Context *, void *);
  int (*prepare)(Context *, void *node);
  int (*invoke)(Context *, void *node);
  const char *(*profiling_string)(const Context *, const void *);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  void *later[8]; /* what newer interpreters read beyond: all nought */
} Registration;
struct Context {
  size_t tensors_size;
  int (*get_execution_plan)(Context *, IntArray **);
  void *tensors;
  void *impl;
  void *resize_tensor;
  void (*report_error)(Context *, const char *, ...);
  void *add_tensors;
  void *get_node_and_registration;
  int (*replace)(Context *, Registration, const IntArray *, Delegate *);
};
struct Delegate {
  const char *mode;
  int (*prepare)(Context *, Delegate *);
  void *copy_from;
  void *copy_to;
  void *free_handle;
  int64_t flags;
  void *builder;
};

static char mode[32];

static void hang(void) { for (;;) pause(); }

static int is(const char *word) { return strcmp(mode, word) == 0; }

static int kernel_prepare(Context *context, void *node) { (void)context; (void)node; return 0; }

static int kernel_invoke(Context *context, void *node) {
  (void)node;
  static int calls;
  calls++;
  if (is("hang") || (is("hang-later") && calls > 14)) hang();
  if (is("crash")) abort();
  if (is("error")) { context->report_error(context, "USB transfer error 5"); return 1; }
  return 0;
}

static int delegate_prepare(Context *context, Delegate *delegate) {
  if (is("ok")) return 0;
  IntArray *plan = 0;
  if (context->get_execution_plan(context, &plan)) return 1;
  /* The list that comes back is the interpreter's own scratch: replacing changes it, so a copy is handed in. */
  size_t bytes = sizeof(IntArray) + (size_t)plan->size * sizeof(int);
  IntArray *all = malloc(bytes);
  memcpy(all, plan, bytes);
  Registration kernel;
  memset(&kernel, 0, sizeof kernel);
  kernel.prepare = kernel_prepare;
  kernel.invoke = kernel_invoke;
  kernel.custom_name = "TrapDelegate";
  kernel.version = 1;
  int status = context->replace(context, kernel, all, delegate);
  free(all);
  return status;
}

Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  strcpy(mode, "ok");
  for (int i = 0; i < (int)count; i++)
    if (strcmp(keys[i], "mode") == 0) strncpy(mode, values[i], sizeof mode - 1);
  if (is("absent")) { report("no device"); return 0; }
  if (is("hang-create")) hang();
  Delegate *made = calloc(1, sizeof *made);
  made->mode = mode;
  made->prepare = delegate_prepare;
  return made;
}

void tflite_plugin_destroy_delegate(Delegate *delegate) { free(delegate); }
