#include <stdio.h>
#include <stdlib.h>

int main(void) {
    puts("before the end");
    exit(7);
}
