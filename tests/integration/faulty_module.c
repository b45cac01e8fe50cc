/* A PKCS#11 module that passes every call on to another one and fails as it is told, so that a lost, slow or silent HSM can
 * be had at will. The first line of the file named by FAULTY_CONTROL says how: "ok", "slow MS", "fail CKR" (each call returns
 * that code), "only N CKR" (the Nth call of CK_FUNCTION_LIST does, from 0 on), "gone CKR" (each call does, until C_Initialize is
 * called once the line is "ok" again). */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef unsigned long word;
typedef word (*call)(word, word, word, word, word, word, word, word);

#define CALLS 68 /* of CK_FUNCTION_LIST in PKCS#11 v2.40 */
#define INITIALIZE 0
#define FINALIZE 1
#define DEVICE_ERROR 0x30

struct list {
    unsigned char version[2];
    call calls[CALLS];
};

static struct list *real;
static struct list ours;
static word gone;

static word fault(int which) {
    char line[64] = "ok";
    word number = 0, code = 0;
    FILE *file = fopen(getenv("FAULTY_CONTROL"), "r");
    if (file) {
        if (!fgets(line, sizeof line, file)) strcpy(line, "ok");
        fclose(file);
    }
    if (sscanf(line, "slow %lu", &number) == 1) {
        struct timespec pause = {number / 1000, number % 1000 * 1000000L};
        nanosleep(&pause, NULL);
    } else if (sscanf(line, "fail %lx", &number) == 1) {
        return number;
    } else if (sscanf(line, "only %lu %lx", &number, &code) == 2) {
        return number == (word)which ? code : 0;
    } else if (sscanf(line, "gone %lx", &number) == 1) {
        gone = number;
    } else if (which == INITIALIZE) {
        gone = 0;
    }
    return which != FINALIZE ? gone : 0;
}

#define PASS(n) \
    static word pass##n(word a, word b, word c, word d, word e, word f, word g, word h) { \
        word code = fault(n); \
        return code ? code : real->calls[n](a, b, c, d, e, f, g, h); \
    }
#define EACH(do) \
    do(0) do(1) do(2) do(3) do(4) do(5) do(6) do(7) do(8) do(9) do(10) do(11) do(12) do(13) do(14) do(15) do(16) do(17) \
    do(18) do(19) do(20) do(21) do(22) do(23) do(24) do(25) do(26) do(27) do(28) do(29) do(30) do(31) do(32) do(33) \
    do(34) do(35) do(36) do(37) do(38) do(39) do(40) do(41) do(42) do(43) do(44) do(45) do(46) do(47) do(48) do(49) \
    do(50) do(51) do(52) do(53) do(54) do(55) do(56) do(57) do(58) do(59) do(60) do(61) do(62) do(63) do(64) do(65) \
    do(66) do(67)
EACH(PASS)
#define ENTER(n) ours.calls[n] = pass##n;

word C_GetFunctionList(struct list **to) {
    if (!real) {
        void *module = dlopen(getenv("FAULTY_MODULE"), RTLD_NOW | RTLD_LOCAL);
        word (*get)(struct list **) = module ? (word (*)(struct list **))dlsym(module, "C_GetFunctionList") : NULL;
        if (!get || get(&real)) return DEVICE_ERROR;
        memcpy(ours.version, real->version, sizeof ours.version);
        EACH(ENTER)
    }
    *to = &ours;
    return 0;
}
