// Makes keys of the row numbers of a batch and checks them; a thread for each row number.
//
//   row_numbers   GA_INDEX, n of them, `stride` elements apart
//   used          (1,) how many of them are in use; read if `limited` is not 0
//   count         rows of the table
//   keys          GA_KEY, (n,) out: row << shift | position in the batch. `count` stands for a row
//                 that is out of range, `count + 1` for one that is not in use: both sort last.
//   out_of_range  (2,) added to: how many are out of range; and the largest n - position of them
extern "C" __global__ void gpuadapt_keys(
    const GA_INDEX *row_numbers, long long stride, long long n, const long long *used, int limited,
    long long count, int shift, GA_KEY *keys, unsigned long long *out_of_range
) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) {
        return;
    }
    const bool unused = limited != 0 && i >= *used;
    long long row = unused ? count + 1 : row_numbers[i * stride];
    if (!unused && (row < 0 || row >= count)) {
        row = count;
        atomicAdd(out_of_range, 1ULL);
        atomicMax(out_of_range + 1, (unsigned long long)(n - i));
    }
    keys[i] = (GA_KEY)((unsigned long long)row << shift | (unsigned long long)i);
}
