#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int ascending(const void *a, const void *b) {
    return *(const int *)a - *(const int *)b;
}

int main(void) {
    int numbers[] = {5, 3, 9, 1};
    qsort(numbers, 4, sizeof *numbers, ascending);
    printf("%d %.3f %zu\n", numbers[0], sqrt(numbers[3]), strlen("text"));
    return 0;
}
