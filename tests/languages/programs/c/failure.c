#include <stdio.h>
#include <stdlib.h>

int main(void) {
    fputs("went wrong on purpose\n", stderr);
    abort();
}
